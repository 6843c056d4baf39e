"""Raw records, their validation and splits, and the published file formats.

    file or glob --file_source.py, csv_reader.py--\\
    hub data set --hub_source.py------------------ open_source.py --columns.py, validation.py--> examples --prepare.py

`formats.py` reads and writes the published files; `preferences.py` reads pairs and short instructions of others,
`predictions.py` the responses that other tools generated.
"""
