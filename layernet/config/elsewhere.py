"""What other frameworks call things: hints for people who write their names from memory.

Names are compared without case and without underscores. Of several meanings, the first that is known where the name
was written counts. Sources: the documented names of PyTorch, Keras, Caffe, Darknet and cuda-convnet.
"""

from __future__ import annotations

from collections.abc import Iterable

from layernet.errors import did_you_mean, one_slip

_NAMES = {
    # keys
    "lr": "learning_rate base_lr lr0 epsW eta step_size",
    "weight_decay": "decay wc wd l2 l2_reg",
    "momentum": "mom momW",
    "betas": "beta_1 beta_2 beta1 beta2",
    "eps": "epsilon",
    "out_channels": "filters num_filters nb_filter n_filters num_output channels outputs features",
    "out_features": "units num_output outputs hidden_units neurons dim output_dim hidden_size",
    "channels": "filters num_filters out_channels width",
    "kernel_size": "ksize kernel filter_size pool_size sizeX kernel_shape window",
    "stride": "strides subsample step",
    "padding": "pad pads border_mode",
    "groups": "group num_groups",
    "dilation": "dilation_rate dilations",
    "p": "rate prob probability dropout dropout_ratio drop_prob dropout_rate",
    "bias": "use_bias bias_term has_bias",
    "weight_init": "kernel_initializer weight_filler initializer init kernel_init",
    "bias_init": "bias_initializer bias_filler",
    "negative_slope": "alpha slope leak",
    "label_smoothing": "smoothing",
    "class_weight": "class_weights weights",
    "batch_size": "batch minibatch mini_batch_size bs train_batch_size",
    "eval_batch_size": "val_batch_size test_batch_size validation_batch_size",
    "val": "validation valid dev eval",
    "train": "training trainer",
    "test": "testing",
    "epochs": "num_epochs max_epochs max_epoch n_epochs nb_epoch num_train_epochs",
    "steps": "max_steps num_steps max_iter iterations iters n_iter max_batches",
    "eval_every": "test_interval val_interval eval_interval eval_steps val_check_interval evaluation_interval",
    "log_every": "display log_interval print_freq logging_steps log_every_n_steps",
    "checkpoint": "checkpointing save snapshot saving",
    "every": "interval period frequency save_every save_interval",
    "keep": "save_total_limit max_keep keep_last save_top_k max_to_keep",
    "best": "monitor metric_for_best_model save_best",
    "data": "dataset datasets data_loader dataloader",
    "net": "model network architecture arch backbone",
    "input": "input_shape input_size in_shape shape input_dim",
    "layers": "modules blocks",
    "loss": "losses criterion objective cost objectives",
    "metrics": "metric measures eval_metrics",
    "optimizer": "optim solver optimiser",
    "schedule": "scheduler lr_scheduler lr_policy lr_schedule",
    "seed": "random_seed rng_seed manual_seed random_state",
    "device": "gpu gpus cuda accelerator solver_mode",
    "dtype": "precision float_type",
    "threads": "num_threads n_jobs num_workers workers",
    "transforms": "transform augmentation augmentations preprocessing pipeline",
    "root": "data_dir path dir folder data_root",
    "on": "output input_name bottom",
    "weight": "loss_weight coeff coefficient",
    "warmup": "warmup_steps warmup_epochs num_warmup_steps warmup_iters",
    "repeat": "times count num",
    "type": "class class_name name kind _target_",
    "gamma": "factor lr_decay decay_rate",
    # types
    "Linear": "Dense InnerProduct FullyConnected fc connected affine",
    "Conv2d": "Convolution Convolutional conv Convolution2D",
    "ConvTranspose2d": "Conv2DTranspose Deconvolution deconv Convolution2DTranspose",
    "Local2d": "LocallyConnected2D LocallyConnected local",
    "SeparableConv2d": "DepthwiseConv2D DepthwiseSeparableConv",
    "MaxPool2d": "MaxPooling2D MaxPool MaxPooling pool pooling",
    "AvgPool2d": "AveragePooling2D AvgPool AvgPooling AveragePooling",
    "MaxPool1d": "MaxPooling1D",
    "AvgPool1d": "AveragePooling1D",
    "GlobalAvgPool2d": "GlobalAveragePooling2D GlobalAvgPool GlobalPool GAP",
    "GlobalMaxPool2d": "GlobalMaxPooling2D GlobalMaxPool",
    "BatchNorm": "BatchNorm2d BatchNorm1d BatchNormalization BN SyncBatchNorm",
    "LayerNorm": "LayerNormalization",
    "GroupNorm": "GroupNormalization",
    "LocalResponseNorm": "LRN cmrnorm rnorm",
    "SiLU": "Swish",
    "ELU": "exponential_linear",
    "Dropout2d": "SpatialDropout2D",
    "DropPath": "StochasticDepth",
    "Upsample": "UpSampling2D",
    "ZeroPad2d": "ZeroPadding2D",
    "Residual": "Shortcut skip",
    "Concat": "Concatenate",
    "CrossEntropy": "CrossEntropyLoss SparseCategoricalCrossentropy CategoricalCrossentropy SoftmaxWithLoss logprob",
    "NLL": "NLLLoss",
    "BCEWithLogits": "BCEWithLogitsLoss BinaryCrossentropy SigmoidCrossEntropyLoss BCELoss BCE",
    "MSE": "MSELoss MeanSquaredError EuclideanLoss L2Loss sse",
    "L1": "L1Loss MeanAbsoluteError MAE",
    "SmoothL1": "SmoothL1Loss",
    "Huber": "HuberLoss",
    "Hinge": "HingeLoss",
    "KLDiv": "KLDivLoss KLDivergence",
    "accuracy": "acc top1 SparseCategoricalAccuracy CategoricalAccuracy",
    "AdamW": "AdamWeightDecay",
    "Step": "StepLR",
    "MultiStep": "MultiStepLR PiecewiseConstantDecay",
    "Exponential": "ExponentialLR ExponentialDecay exp",
    "Cosine": "CosineAnnealingLR CosineDecay CosineAnnealing",
    "CosineRestarts": "CosineAnnealingWarmRestarts CosineDecayRestarts SGDR",
    "OneCycle": "OneCycleLR",
    "Polynomial": "PolynomialLR PolynomialDecay poly",
    "Plateau": "ReduceLROnPlateau",
    "Constant": "ConstantLR fixed",
    "RandomHorizontalFlip": "RandomFlip HorizontalFlip flip",
    "Cutout": "RandomErasing",
    "ImageFolder": "image_dataset_from_directory ImageData folder",
    "Csv": "pandas table",
    "kaiming_normal": "he_normal msra kaiming he",
    "kaiming_uniform": "he_uniform",
    "xavier_uniform": "glorot_uniform xavier glorot",
    "xavier_normal": "glorot_normal",
    "normal": "gaussian random_normal",
    "uniform": "random_uniform",
    "constant": "zeros ones",
}

_SAID = {
    "an activation is a layer of its own: write `- ReLU` as the next layer": "activation act nonlinearity neuron",
    "leave it out: it follows from what comes before": "in_features in_channels num_features input_channels",
    "leave it out: there is one layout, features last": "data_format channels_last",
    "leave it out: every layer may work in place where the plan sees that it can": "inplace in_place",
    "leave it out: `name` says what a layer is called, and layers run in the order written": "inputs bottom top",
}
"""What to say of names that nothing here answers to."""


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").casefold()


_MEANT: dict[str, list[str]] = {}
for _ours, _theirs in _NAMES.items():
    for _name in _theirs.split():
        _MEANT.setdefault(_plain(_name), []).append(_ours)
_ADVICE = {_plain(name): advice for advice, names in _SAID.items() for name in names.split()}


def suggest(word: str, known: Iterable[str], taken: Iterable[str] = ()) -> str:
    """`did_you_mean`, which also knows what other frameworks call what is known here."""
    choices = list(known)
    meant = [ours for ours in _MEANT.get(_plain(word), ()) if ours in choices]
    advice = _ADVICE.get(_plain(word))
    if advice and not meant and not any(one_slip(word, choice) for choice in choices):
        return advice
    return did_you_mean(word, choices, taken, meant)
