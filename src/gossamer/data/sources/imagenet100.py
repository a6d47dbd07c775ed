"""ImageNet-100: a hundred classes of ImageNet (Deng et al., 2009), by default those of Tian et al. (CMC, 2020)."""

from pathlib import Path

from gossamer.data.dataset import DataSet
from gossamer.data.images import Decoding, list_classes, load_images, sub_folders
from gossamer.errors import DataError

# The list published with Contrastive Multiview Coding. Other papers that say "ImageNet-100" without a list may
# mean another choice: a file imagenet100.txt or classes.txt beside train and val takes precedence.
_CMC_LIST = """
n02869837 n01749939 n02488291 n02107142 n13037406 n02091831 n04517823 n04589890 n03062245 n01773797
n01735189 n07831146 n07753275 n03085013 n04485082 n02105505 n01983481 n02788148 n03530642 n04435653
n02086910 n02859443 n13040303 n03594734 n02085620 n02099849 n01558993 n04493381 n02109047 n04111531
n02877765 n04429376 n02009229 n01978455 n02106550 n01820546 n01692333 n07714571 n02974003 n02114855
n03785016 n03764736 n03775546 n02087046 n07836838 n04099969 n04592741 n03891251 n02701002 n03379051
n02259212 n07715103 n03947888 n04026417 n02326432 n03637318 n01980166 n02113799 n02086240 n03903868
n02483362 n04127249 n02089973 n03017168 n02093428 n02804414 n02396427 n04418357 n02172182 n01729322
n02113978 n03787032 n02089867 n02119022 n03777754 n04238763 n02231487 n03032252 n02138441 n02104029
n03837869 n03494278 n04136333 n03794056 n03492542 n02018207 n04067472 n03930630 n03584829 n02123045
n04229816 n02100583 n03642806 n04336792 n03259280 n02116738 n02108089 n03424325 n01855672 n02090622
"""
CMC_CLASSES = tuple(sorted(_CMC_LIST.split()))

LIST_FILES = ("imagenet100.txt", "classes.txt")
_FOLDERS = ("imagenet100", "ImageNet-100", "imagenet", "ImageNet", ".")
_MARGIN = 256 / 224


def load(
    part: str,
    data_dir: Path,
    *,
    download: bool = True,
    image_size: int = 224,
    cache_dir: Path | None = None,
) -> DataSet:
    """Return the training images, or as test part the validation images: (3, image_size, image_size).

    Read from train/ID and val/ID, in DIR or in a folder imagenet100 or imagenet of it; ID is a WordNet id, and
    labels number the ids in order. The short side is resized to 256/224 of image_size and the centre cropped, in
    both parts. ImageNet is given out to account holders only, so nothing is downloaded. Raises DataError.
    """
    del download
    root = _root(data_dir)
    listing = list_classes(root / ("train" if part == "train" else "val"), _classes(root))
    decoding = Decoding(image_size=image_size, margin=_MARGIN)
    return load_images("imagenet100", part, listing, decoding, cache_dir=cache_dir)


def _root(data_dir: Path) -> Path:
    for name in _FOLDERS:
        root = data_dir / name
        if (root / "train").is_dir() and (root / "val").is_dir():
            return root
    raise DataError(
        f"ImageNet-100 in {data_dir}",
        expected="the folders train/ID and val/ID, in it or in a folder imagenet100 of it",
        got="none",
        remedy="get ILSVRC 2012 with an account at image-net.org, sort the validation images into one folder an "
        "id, and name the directory with --data-dir or GOSSAMER_DATA",
    )


def _classes(root: Path) -> tuple[str, ...]:
    """Return the ids of a list file; else the published hundred if they are there; else the hundred that are."""
    for name in LIST_FILES:
        path = root / name
        if path.is_file():
            return _listed(path)
    present = sub_folders(root / "train")
    if set(CMC_CLASSES) <= set(present):
        return CMC_CLASSES
    if len(present) == len(CMC_CLASSES):
        return present
    absent = sorted(set(CMC_CLASSES) - set(present))
    raise DataError(
        str(root / "train"),
        expected="the hundred classes of CMC, or exactly a hundred of any",
        got=f"{len(present)} classes without {', '.join(absent[:3])} and {max(0, len(absent) - 3)} more",
        remedy=f"add the classes, or name yours in {root / LIST_FILES[0]}, one id a line",
    )


def _listed(path: Path) -> tuple[str, ...]:
    ids = path.read_text().split()
    if len(ids) != len(CMC_CLASSES) or len(set(ids)) != len(ids):
        raise DataError(
            str(path),
            expected="a hundred distinct ids, one a line",
            got=f"{len(ids)} ids, {len(set(ids))} of them distinct",
            remedy="correct the list, or remove it to use the published one",
        )
    return tuple(sorted(ids))
