"""Judges samplers: which law does one draw from?"""
