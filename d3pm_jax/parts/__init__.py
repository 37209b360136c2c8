"""Builds what a config describes: process, network and state, placed on the devices."""
