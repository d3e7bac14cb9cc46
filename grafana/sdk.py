"""grafana-foundation-sdk without the warning of its classic schema.

It recommends the v2 schema, which Grafana before 13 can't import. Everyone else in this
package takes the SDK from here.
"""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import (
        barchart,
        common,
        dashboard,
        prometheus,
        stat,
        table,
        timeseries,
    )
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import common as common_model
    from grafana_foundation_sdk.models import dashboard as model
    from grafana_foundation_sdk.models.prometheus import PromQueryFormat

__all__ = [
    "JSONEncoder",
    "PromQueryFormat",
    "barchart",
    "common",
    "common_model",
    "dashboard",
    "model",
    "prometheus",
    "stat",
    "table",
    "timeseries",
]
