"""Figures from databases. The only package that imports SQLAlchemy."""
