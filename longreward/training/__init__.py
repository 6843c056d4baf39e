"""Training with TRL: `sft` makes the model that answers, `dpo` moves it towards the better of its own answers."""
