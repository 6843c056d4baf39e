"""Validate a judge: is it repeatable, does it rank known answers, does it resist attacks?"""
