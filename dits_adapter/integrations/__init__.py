"""Integrations: query encoders for the frameworks that their users already have."""
