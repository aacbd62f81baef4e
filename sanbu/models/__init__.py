"""Step 1: which functions may be the answer? A line for each kind; its file has the config and, below it, the function.

The folder is the family: what the function is called with, and so which objectives and strategies fit.
"""

KINDS = {
    # tokens: piece by piece over text
    "gpt1": "tokens.gpt",
    "gpt2": "tokens.gpt",
    "gpt3": "tokens.gpt",
    "llama": "tokens.llama",
    "mistral": "tokens.llama",
    "qwen2": "tokens.qwen",
    "qwen3": "tokens.qwen",
    "phi3": "tokens.phi",
    "gemma2": "tokens.gemma",
    "gemma3": "tokens.gemma",
    "neox": "tokens.neox",
    "opt": "tokens.opt",
    "modern": "tokens.modern",
    "canon": "tokens.canon",
    "rnn": "tokens.recurrent",
    "gru": "tokens.recurrent",
    "lstm": "tokens.recurrent",
    "mingru": "tokens.mingru",
    "causal-cnn": "tokens.convolution",
    "ngram": "tokens.ngram",
    "token-trees": "tokens.token_trees",
    "ngram-mixture": "tokens.mixture",
    "lora": "tokens.lora",
    # scorers: one number or one row of scores for a text
    "scorer": "scorers.scorer",
    # predictors: numbers, or a score for each class, of an input
    "mlp": "predictors.mlp",
    "cnn": "predictors.cnn",
    "wide-resnet": "predictors.cnn",
    "cnn-reconstructor": "predictors.reconstructor",
    "trees": "predictors.trees",
    # pixels: piece by piece over pictures
    "pixelcnn": "pixels.pixelcnn",
    "row-lstm": "pixels.pixelrnn",
    "diagonal-bilstm": "pixels.pixelrnn",
    "image-gpt": "pixels.image_gpt",
    # latents and generators: a picture all at once
    "perceptron-vae": "latents.vae",
    "autoencoder": "latents.vae",
    "perceptron-gan": "generators.gan",
    "dcgan": "generators.gan",
    # denoisers: a picture in N refinements
    "perceptron-denoiser": "denoisers.perceptron",
    "skip-perceptron": "denoisers.perceptron",
    "unet": "denoisers.unet",
    "dit": "denoisers.dit",
    "tree-denoiser": "denoisers.trees",
    # columns: the cells of a table, each given others
    "copula": "columns.copula",
    "column-forest": "columns.forest",
    "column-boosted": "columns.boosted",
    "column-transformer": "columns.transformer",
    # acoustic models: the mel spectrogram of a text or a score
    "fastspeech2": "acoustic.fastspeech2",
    "convolutional-speech": "acoustic.fastspeech2",
    "tacotron2": "acoustic.tacotron2",
    "flow-speech": "acoustic.flow_speech",
    "performer": "acoustic.performer",
    "flow-performer": "acoustic.performer",
    # recognisers: the letters of a mel spectrogram
    "ctc-recogniser": "recognisers.ctc",
    "ctc-pictures": "recognisers.ctc_pictures",
    # vocoders: the wave of a mel spectrogram
    "istft-head": "vocoders.istft_head",
    "magnitude-head": "vocoders.magnitude_head",
    "hifigan": "vocoders.hifigan",
    "wavenet": "vocoders.wavenet",
    "waveglow": "vocoders.waveglow",
    # sound codecs: a wave by way of codes
    "magnitude-codec": "sound_codecs.magnitude_codec",
    "istft-codec": "sound_codecs.istft_codec",
    # codes: several tokens per step
    "code-transformer": "codes.code_transformer",
    # your own nn.Module, by family
    "custom": "custom_module",
    "custom-tokens": "custom_module",
    "custom-pixels": "custom_module",
    "custom-latent": "custom_module",
    "custom-generator": "custom_module",
    "custom-denoiser": "custom_module",
}


def __getattr__(name: str) -> object:
    if name == "custom":
        from sanbu.models.custom_module import custom

        return custom
    raise AttributeError(f"module 'sanbu.models' has no attribute {name!r}")
