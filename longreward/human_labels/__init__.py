"""Human labels: what people say about statements, responses and pairs that a judge has rated.

    sampling     items of a finished score stage, stratified by dimension and margin
    tables       labels from CSV and JSON lines
    agreement    Cohen's kappa and pairwise accuracy of the judge, a length-only baseline and other reviewers
    report       the same as Markdown and as JSON
    label_page   the items as an HTML page, for reviewers without MLflow
    verdicts     the judge's verdicts on the labelled items, again or for the first time
    gate         the agreement that `judge.check` requires

`longreward.tasks.review_queues` shows the items in MLflow.
"""
