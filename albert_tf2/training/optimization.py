"""LAMB and AdamW, the learning rate, and which variables decay and adapt.

LAMB (Large Batch Optimization for Deep Learning, 1904.00962) is Model
Garden's, or TensorFlow Addons' where that exists (TensorFlow 2.15):

    m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
    u = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) + decay * w
    w = w - rate * (|w| / |u|) * u

Both libraries tie the trust ratio |w| / |u| to weight decay: a variable that
does not decay silently does not adapt either, as in google's ALBERT. The
paper and albert_zh adapt every variable; `lamb_adaptation` says which.

AdamW (1711.05101) is Keras' own Adam with decay added, for pre-training and
fine-tuning alike:

    w = w - rate * decay * w
    w = w - rate * m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps')

Keras has an AdamW too, but on its newer optimizers, which cannot leave the
bias of the moments uncorrected, as the originals do, and are driven and saved
in another way than LAMB; Model Garden has this one, but fine-tuning needs
nothing beyond the core. The legacy Adam is one kernel for each variable.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from albert_tf2.errors import check_choice
from albert_tf2.keras_api import keras
from albert_tf2.recipes import FinetuneRecipe, PretrainRecipe, lamb_missing
from albert_tf2.settings import LAMB_ADAPTATIONS, OPTIMIZERS
from albert_tf2.training.precision import FLOAT16, unwrapped

# LayerNorm and biases do not decay, in any of the originals.
NO_DECAY = ("LayerNorm", "bias")
# A pattern that matches no name: an empty list would mean "as NO_DECAY".
_NOTHING = "(?!)"


@keras.utils.register_keras_serializable(package="albert_tf2")
class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """The originals' schedule: warm-up and decay both count from step 0.

        step < warmup:  rate * step / warmup
        else:           end + (rate - end) * (1 - step / total)

    So the rate falls by a step at the end of the warm-up. A warm-up as long as
    the run (a recipe with its `train_steps` cut) is cut to a tenth of it.
    `scale` is a variable that the guard halves when it rolls a run back.
    """

    def __init__(
        self,
        learning_rate: float,
        *,
        train_steps: int,
        warmup_steps: int,
        end_learning_rate: float = 0.0,
        scale: tf.Variable | None = None,
    ):
        super().__init__()
        self.learning_rate = learning_rate
        self.train_steps = train_steps
        if warmup_steps >= train_steps:
            warmup_steps = train_steps // 10
        self.warmup_steps = warmup_steps
        self.end_learning_rate = end_learning_rate
        self.scale = scale

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        left = tf.maximum(1.0 - step / self.train_steps, 0.0)
        decayed = (
            self.end_learning_rate
            + (self.learning_rate - self.end_learning_rate) * left
        )
        warming = self.learning_rate * step / max(self.warmup_steps, 1)
        rate = tf.where(step < self.warmup_steps, warming, decayed)
        return rate if self.scale is None else rate * self.scale

    def get_config(self):
        return {
            "learning_rate": self.learning_rate,
            "train_steps": self.train_steps,
            "warmup_steps": self.warmup_steps,
            "end_learning_rate": self.end_learning_rate,
        }

    def describe(self) -> str:
        """Returns the resolved schedule in one line."""
        return (
            f"learning rate: 0 to {self.learning_rate:.4g} over "
            f"{self.warmup_steps} steps, then linearly to "
            f"{self.end_learning_rate:.4g} at step {self.train_steps}"
        )


def scaled_learning_rate(
    learning_rate: float, global_batch_size: int, base_batch_size: int | None
) -> float:
    """Scales a rate by the square root of the batch (1904.00962, section 4).

    Args:
        learning_rate: The rate that suits `base_batch_size`.
        global_batch_size: The batch of this run.
        base_batch_size: None leaves the rate as it is.
    """
    if base_batch_size is None:
        return learning_rate
    return learning_rate * (global_batch_size / base_batch_size) ** 0.5


def decays(name: str) -> bool:
    """Says whether a variable of this name decays."""
    return not any(re.search(pattern, name) for pattern in NO_DECAY)


def _lamb_class():
    if tf.__version__.startswith("2.15."):
        try:
            from tensorflow_addons.optimizers import LAMB

            return LAMB, "weight_decay"
        except ImportError:
            pass
    try:
        from official.modeling.optimization.lamb import LAMB
    except ImportError as error:
        raise lamb_missing() from error
    return LAMB, "weight_decay_rate"


class AdamW(keras.optimizers.legacy.Adam):
    """Adam whose weights decay apart from the moments (see the module).

    A step reads the rate once, so decay and update have the same.
    """

    def __init__(self, *args, weight_decay: float, name="AdamW", **kwargs):
        super().__init__(*args, name=name, **kwargs)
        self.weight_decay = weight_decay

    def _decay(self, var: tf.Variable, apply_state) -> list[tf.Operation]:
        if not self.weight_decay or not decays(var.name):
            return []
        kind = (var.device, var.dtype.base_dtype)
        coefficients = (apply_state or {}).get(
            kind
        ) or self._fallback_apply_state(*kind)
        change = coefficients["lr_t"] * var * self.weight_decay
        return [var.assign_sub(change, use_locking=self._use_locking)]

    def _resource_apply_dense(self, grad, var, apply_state=None):
        with tf.control_dependencies(self._decay(var, apply_state)):
            return super()._resource_apply_dense(grad, var, apply_state)

    def _resource_apply_sparse(self, grad, var, indices, apply_state=None):
        with tf.control_dependencies(self._decay(var, apply_state)):
            return super()._resource_apply_sparse(
                grad, var, indices, apply_state
            )

    def get_config(self):
        return super().get_config() | {"weight_decay": self.weight_decay}


def _without_bias_correction(optimizer_class: type) -> type:
    """Returns the class with 1 - beta^t replaced by 1, as the originals."""

    class Uncorrected(optimizer_class):
        def _prepare_local(self, var_device, var_dtype, apply_state):
            super()._prepare_local(var_device, var_dtype, apply_state)
            state = apply_state[(var_device, var_dtype)]
            state["beta_1_power"] = tf.zeros_like(state["beta_1_power"])
            state["beta_2_power"] = tf.zeros_like(state["beta_2_power"])

    return Uncorrected


def create_optimizer(
    name: str,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    *,
    weight_decay: float = 0.01,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-6,
    lamb_adaptation: str = "paper",
    bias_correction: bool = True,
    precision: str = "float32",
) -> keras.optimizers.legacy.Optimizer:
    """Returns LAMB or AdamW; `precision.Update` clips and applies.

    Args:
        name: "lamb" or "adamw".
        learning_rate: A number or a schedule.
        weight_decay: Of all variables but `NO_DECAY`.
        beta_1: Decay of the first moment.
        beta_2: Decay of the second moment.
        epsilon: Added to the root of the second moment.
        lamb_adaptation: "paper" scales every variable by its trust ratio,
            "google" all but `NO_DECAY`.
        bias_correction: False gives the originals' update.
        precision: With mixed_float16 the loss is scaled.
    """
    check_choice("optimizer", name, OPTIMIZERS)
    check_choice("lamb_adaptation", lamb_adaptation, LAMB_ADAPTATIONS)
    shared: dict[str, Any] = {
        "learning_rate": learning_rate,
        "beta_1": beta_1,
        "beta_2": beta_2,
        "epsilon": epsilon,
    }
    if name == "adamw":
        optimizer_class: Any = AdamW
        own: dict[str, Any] = {"weight_decay": weight_decay}
    else:
        optimizer_class, decay_argument = _lamb_class()
        own = {
            decay_argument: weight_decay,
            "exclude_from_weight_decay": list(NO_DECAY),
            "exclude_from_layer_adaptation": [_NOTHING]
            if lamb_adaptation == "paper"
            else list(NO_DECAY),
        }
    if not bias_correction:
        optimizer_class = _without_bias_correction(optimizer_class)
    optimizer = optimizer_class(**shared, **own)
    if precision == FLOAT16:
        return keras.mixed_precision.LossScaleOptimizer(optimizer)
    return optimizer


def recipe_optimizer(
    recipe: PretrainRecipe | FinetuneRecipe,
    schedule: WarmupLinearDecay,
    variables: Sequence[tf.Variable],
) -> keras.optimizers.legacy.Optimizer:
    """Returns a recipe's optimizer for some variables, its slots created.

    With the slots there, a checkpoint is restored into them at once.

    Args:
        recipe: How.
        schedule: The rate.
        variables: What to update.
    """
    optimizer = create_optimizer(
        recipe.optimizer,
        schedule,
        weight_decay=recipe.weight_decay,
        beta_1=recipe.beta_1,
        beta_2=recipe.beta_2,
        epsilon=recipe.epsilon,
        lamb_adaptation=recipe.lamb_adaptation,
        bias_correction=recipe.bias_correction,
        precision=recipe.precision,
    )
    unwrapped(optimizer)._create_all_weights(variables)
    return optimizer


def describe_variables(
    variables: Iterable[tf.Variable], name: str, lamb_adaptation: str
) -> str:
    """Returns a table: each variable, and whether it decays and adapts."""
    lines = [f"{'variable':<48} {'shape':<14} decays adapts"]
    for variable in variables:
        short = variable.name.removesuffix(":0")
        decay = decays(short)
        adapts = name == "lamb" and (lamb_adaptation == "paper" or decay)
        shape = "x".join(map(str, variable.shape))
        lines.append(
            f"{short:<48} {shape:<14} {'yes' if decay else 'no':<6} "
            f"{'yes' if adapts else 'no'}"
        )
    return "\n".join(lines)


def trust_ratios(
    optimizer: keras.optimizers.legacy.Optimizer,
    variables: Sequence[tf.Variable],
    *,
    weight_decay: float = 0.01,
    bias_correction: bool = True,
) -> dict[str, tf.Tensor]:
    """Returns |w| / |u| of each variable, from the moments as they stand.

    Those are the ratios that the last step applied, but for the change that
    the step itself made to w.
    """
    step = tf.cast(optimizer.iterations, tf.float32)
    beta_1 = optimizer._get_hyper("beta_1", tf.float32)
    beta_2 = optimizer._get_hyper("beta_2", tf.float32)
    first, second = (
        (1.0 - beta_1**step, 1.0 - beta_2**step)
        if bias_correction
        else (1.0, 1.0)
    )
    ratios = {}
    for variable in variables:
        m = optimizer.get_slot(variable, "m")
        v = optimizer.get_slot(variable, "v")
        update = (m / first) / (tf.sqrt(v / second) + optimizer.epsilon)
        name = variable.name.removesuffix(":0")
        if decays(name):
            update += weight_decay * variable
        ratios[name] = tf.math.divide_no_nan(tf.norm(variable), tf.norm(update))
    return ratios
