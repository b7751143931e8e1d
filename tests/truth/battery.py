"""Every check, the cheap ones first."""

from __future__ import annotations

from . import checks, solvers, steering

CHECKS = (
    steering.check_times_drawn,
    steering.check_start,
    steering.check_loss,
    steering.check_cfg_off,
    steering.check_cfg_formula,
    steering.check_cfg_together,
    steering.check_own_weights,
    steering.check_cfg_interval,
    steering.check_conditional_loss_uses_own_label,
    steering.check_dropout,
    steering.check_absent,
    steering.check_null,
    steering.check_time_per_item,
    checks.check_closed_forms,
    checks.check_targets,
    checks.check_tables,
    checks.check_posterior,
    checks.check_eta,
    checks.check_exact_on_constant_answers,
    checks.check_heun_coefficients,
    checks.check_heun_from_afar,
    checks.check_multistep_coefficients,
    checks.check_estimate,
    checks.check_ddpm_grid,
    checks.check_grids,
    checks.check_calls,
    checks.check_climb,
    checks.check_fresh_noise,
    checks.check_level_told,
    *solvers.SOLVERS,
    checks.check_one_point,
    checks.check_orders,
    steering.check_cfg_law,
    checks.check_ancestral_law,
)
