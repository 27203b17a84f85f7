"""Fine-tuning and evaluation: `python -m train.finetune --config configs/NAME.py`."""
