"""One file a data set: each has `load(part, data_dir, ...) -> DataSet`."""
