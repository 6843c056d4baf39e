"""The policy model: loading, prompt encoding, and sampling in this process or at a server.

config.py, policy.py, chat_encoding.py   settings, loading, prompts as token ids
model_ref.py, compatibility.py           where a model is and whether it can be used
sampling.py, generation.py, kv_cache.py   sampling in this process
server_config.py, servers.py, policy_client.py, served_policy.py   sampling at a server
"""
