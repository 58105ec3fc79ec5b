"""ALBERT: layers, heads, losses."""
