"""MLflow: one parent run for each pipeline, one run for each stage, the trained model in the registry.

    parent "brave-otter"        every parameter, the headline metrics of every stage
    ├── prepare, sft, … train   the stage's parameters, metrics, input hashes, live training curves
    └── evaluate
        ├── sft                 the same metric names for each model, tagged with its role
        └── dpo

The only package that imports mlflow. The store is SQLite in the state folder unless `MLFLOW_TRACKING_URI` names one.
"""
