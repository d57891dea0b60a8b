"""Knowledge distillation with extracurricular learning."""

__version__ = "0.1.0"
