"""The public benchmarks, all of one shape: load the cases, ask the model, ask the judge, summarise."""
