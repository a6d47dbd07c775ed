"""A user's own images: one sub-folder a class, with or without train and test parts."""

from pathlib import Path

from gossamer.data.dataset import DataSet
from gossamer.data.images import Decoding, Listing, list_classes, load_images, sub_folders
from gossamer.data.splits import train_test
from gossamer.errors import DataError

TEST_SHARE = 0.2


def load(
    part: str,
    data_dir: Path,
    *,
    download: bool = True,
    image_size: int | None = None,
    mode: str = "rgb",
    cache_dir: Path | None = None,
) -> DataSet:
    """Return the images of DIR/train/CLASS and DIR/test/CLASS (or DIR/val/CLASS).

    Where DIR holds the classes themselves, a class-balanced 80/20 split, keyed by the checksum, makes the parts.
    image_size: resize the short side to it and crop the centre; needed where sizes differ. mode: rgb or gray.
    Raises DataError on a missing or empty class, an unreadable image, or images of several sizes.
    """
    del download
    decoding = Decoding(image_size=image_size, mode=mode)
    if not (data_dir / "train").is_dir():
        whole = load_images("folder", part, _list_whole(data_dir), decoding, cache_dir=cache_dir)
        return train_test(whole, part, TEST_SHARE)
    return load_images("folder", part, _list_part(data_dir, part), decoding, cache_dir=cache_dir)


def _list_whole(folder: Path) -> Listing:
    return list_classes(folder, _classes(folder))


def _list_part(data_dir: Path, part: str) -> Listing:
    classes = _classes(data_dir / "train")
    has_val = not (data_dir / "test").is_dir() and (data_dir / "val").is_dir()
    folder = data_dir / ("val" if part == "test" and has_val else part)
    unknown = sorted(set(sub_folders(folder)) - set(classes))
    if unknown:
        raise DataError(
            str(folder),
            expected="the classes of the train folder",
            got=f"also {', '.join(unknown[:5])}",
            remedy="give every class a folder under train",
        )
    return list_classes(folder, classes)


def _classes(folder: Path) -> tuple[str, ...]:
    classes = sub_folders(folder)
    if len(classes) < 2:
        raise DataError(
            str(folder),
            expected="one sub-folder of images for each of at least two classes",
            got=f"{len(classes)} sub-folders",
            remedy="lay images out as DIR/train/CLASS and DIR/test/CLASS, or DIR/CLASS; name DIR with --data-dir",
        )
    return classes
