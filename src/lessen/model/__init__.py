"""The one transformer of lessen, in ragged form: plain `nn.Module`s that know nothing of the axes."""
