"""The reward in other evaluation tools: scorers for MLflow (`mlflow`) and inspect_ai (`inspect_ai`)."""
