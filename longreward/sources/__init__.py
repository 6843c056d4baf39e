"""Where raw records come from: files on disk or a hub data set, one record in memory at a time.

    from longreward.sources.opening import open_source
    source = open_source(root, "data/raw/mine/*.parquet", key="prepare.source", checksum=None)
    for place, row in source.rows(): ...   # Place("data/raw/mine/0.parquet", "row", 17), {"question": …}
"""
