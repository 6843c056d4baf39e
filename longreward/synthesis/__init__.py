"""Questions and answers created from a user's own documents, as a replacement for labelled data.

    data/raw/documents/*.pdf
    --documents.py, file_readers.py-->  contexts of a length and a language
    --writer.py, prompts.py-->          questions of four kinds, then an answer to each
    --synthesize.py-->                  grounded answers in data/synthesized/questions.jsonl

Whatever is dropped on the way (a scan, a duplicate, an answer that its document does not support) is written to
rejected.jsonl with the reason.
"""
