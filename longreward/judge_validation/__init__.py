"""Whether a judge can be trusted: does it repeat itself, does it rank known answers, does it resist orders?"""
