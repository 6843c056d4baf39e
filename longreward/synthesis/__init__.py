"""Questions and answers made from documents of a user's own, in place of data that somebody else would have to label.

    data/raw/documents/*.pdf
    --documents, readers-->  text  --contexts-->  contexts of a length and a language
    --writing-->  questions of four kinds, then an answer to each  --filtering-->  data/synthesized/questions.jsonl

What is left out on the way (a scan, a duplicate, an answer that its document does not bear out) is kept with the
reason, in rejected.jsonl.
"""
