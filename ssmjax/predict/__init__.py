"""What photos show: `python -m ssmjax.predict`, of classifiers and models of dense tasks."""
