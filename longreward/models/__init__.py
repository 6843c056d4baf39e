"""Answers of the policy from a server of the OpenAI protocol, in place of the model in this process.

config.py      the section `server` of params.yaml
checking.py    is it complete, is it there?
client.py      one prompt in, n answers out
sampling.py    examples in, Responses out, as `longreward.models.sampling` gives them
launching.py   the command that starts a server on a checkpoint
"""
