"""The evidence page: prompts, responses, verdicts and evidence of a run as one self-contained HTML file.

    page = EvidencePage("my-project", storage_key="my-project")
    page.add(collection, entries)       # entries are compressed as they come
    page.write(Path("evidence.html"))

entries.py               what the page shows of a prompt: responses, dimensions, statements with evidence, extracts
reward_entries.py        entries of scored responses and their pairs
comparison_entries.py    entries of the SFT model next to the trained one, on held-out prompts and benchmarks
html_page.py             the page: compressed blocks, the index, the template
page_files/              template, stylesheet and script
"""
