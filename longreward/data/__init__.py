"""Where raw records come from: files on disk or a hub data set, one record in memory at a time.

    "data/raw/mine/*.parquet"   --opening, pinning-->  files    \\
    "hub:THUDM/LongReward-10k"  --opening-->           hub      --place, row--> columns --> checking --> Example

`columns` gives a row the published names; `checking` leaves out what is bad or came before.
"""
