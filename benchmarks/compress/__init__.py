"""What `stonefx.compress` reaches on trained models, beside the recipes of others: `stonefx bench compress`.

`rows` is the vocabulary, `cases` what is measured, `peers` the recipes of others, `work` statistics that all arms of a
case share, `intervals` how sure the figures are, `run` the command.
"""
