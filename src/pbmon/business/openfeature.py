"""The hook that records exposures of feature flags. Needs openfeature-sdk, and is imported only
where it is used."""

from __future__ import annotations

from pbmon import identity, runtime, signals
from pbmon.business.experiments import UNKNOWN_VARIANT

try:
    from openfeature.flag_evaluation import FlagEvaluationDetails, FlagValueType
    from openfeature.hook import Hook, HookContext, HookHints
except ImportError:
    raise ImportError(
        "pbmon.OpenFeatureHook needs openfeature-sdk; pip install 'pbmon[openfeature]'"
    ) from None


class OpenFeatureHook(Hook):
    """Records who met which variant of a feature flag: api.add_hooks([pbmon.OpenFeatureHook()]).

    For flags whose key is declared as an experiment, [experiments.KEY] in the settings; all
    others pass. The variant is the one that the provider names, the user the evaluation's
    targeting key, else the user or session of the request. Never changes or fails an evaluation.
    Goes where pbmon.expose() goes.
    """

    def after(
        self,
        hook_context: HookContext,
        details: FlagEvaluationDetails[FlagValueType],
        hints: HookHints,
    ) -> None:
        with signals.guard("the hook of OpenFeature"):
            sink = runtime.active.experiments
            key = hook_context.flag_key
            if sink is None or key not in runtime.active.settings.experiments:
                return
            user_id = identity.id_text(hook_context.evaluation_context.targeting_key)
            variant = details.variant or ""
            verdict = sink.expose(key, variant, user_id, "openfeature")
            if verdict == UNKNOWN_VARIANT:
                signals.tell(
                    f"openfeature:{key}",
                    "pbmon: feature flag %s was evaluated to the variant %r, which [experiments.%s]"
                    " does not declare; the exposure is not recorded. Declare its variants there",
                    key, variant[:32], key,
                )  # fmt: skip
