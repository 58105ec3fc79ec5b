"""Packaging: five top-level folders become one importable package.

What the project is called and who may use it stands in `pyproject.toml`; here
is what needs a line of code.

`data`, `hub_export`, `configs` and `starter` would clash with everyone's if
they were installed under their own names, so the installed name is the only
name: `albert_tf2.data`, `albert_tf2.hub_export`, `albert_tf2.configs`,
`albert_tf2.starter`.
"""

from setuptools import setup

PACKAGES = {
    "albert_tf2": "albert_tf2",
    **{
        f"albert_tf2.{room}": f"albert_tf2/{room}"
        for room in (
            "paths",
            "text",
            "records",
            "model",
            "training",
            "pretraining",
            "tasks",
            "finetuning",
            "checkpoints",
            "prediction",
        )
    },
    "albert_tf2.data": "data",
    "albert_tf2.hub_export": "hub_export",
    "albert_tf2.configs": "configs",
    "albert_tf2.starter": "starter",
}

# The primary line is TensorFlow 2.20; `constraints/` holds the sets that are
# tested (`.ci/line`). tensorflow-text 2.13 was never built for Python 3.11.
# tensorflow-hub still imports pkg_resources, which setuptools 82 dropped.
INSTALL_REQUIRES = [
    "tensorflow>=2.14,<2.22",
    "tensorflow-text>=2.14,<2.22",
    "tf-keras>=2.15,<2.22",
    "tensorflow-hub>=0.16.1",
    "tensorboard>=2.14",  # TensorFlow 2.21 no longer brings it.
    "jieba>=0.42.1",
    "google-crc32c>=1.5",
    "numpy",
    "safetensors>=0.4",
    "PyYAML>=6",
    "tqdm>=4.60",
    "setuptools<82",
]

# pydantic 2 needs a typing_extensions that the extra `addons` cannot have.
SERVE = ["fastapi>=0.115", "pydantic>=2.7,<3", "uvicorn>=0.30"]
PLOT = ["matplotlib>=3.7"]
HUBS = ["huggingface_hub>=0.23", "kagglehub>=0.3"]
HUGGINGFACE = ["torch>=2.4", "transformers>=4.40"]
ONNX = ["tf2onnx>=1.17", "onnx>=1.17", "onnxruntime>=1.20"]
LITERT = ["ai-edge-litert>=2.0"]
FAST = ["rjieba>=0.2", "zstandard>=0.22"]

EXTRAS = {
    # LAMB and Orbit (Model Garden), the fast segmenter, curves.
    "train": [
        "tf-models-official>=2.15,<2.21",
        *PLOT,
        *FAST,
    ],
    # TensorFlow Addons lives on the 2.15 line only, with old companions.
    "addons": [
        "tensorflow==2.15.1",
        "tensorflow-text==2.15.0",
        "tf-keras==2.15.1",
        "tf-models-official==2.15.0",
        "tensorflow-addons==0.23.0",
        "tensorflow-metadata==1.16.1",
        "tensorflow-datasets==4.9.7",
        "typing_extensions<4.6",
        "pyarrow<26",  # 26 needs NumPy 2, which this TensorFlow refuses.
        *PLOT,
        *FAST,
    ],
    "plot": PLOT,
    "fast": FAST,
    "spark": ["pyspark>=3.5,<4"],
    # Paths on hdfs:// (pyarrow), http:// and, with the client that fsspec
    # names, s3:// or abfs://. TensorFlow serves gs:// by itself.
    "remote": ["fsspec>=2023.1", "pyarrow>=14"],
    # hf:owner/name, kaggle:owner/model/..., and `convert --push`.
    "hubs": HUBS,
    "huggingface": HUGGINGFACE,
    "onnx": ONNX,
    # `predict --engine litert`, and what `export --what litert` verifies with.
    "litert": LITERT,
    "serve": SERVE,
    # The TPU compiler, which needs no TPU to compile.
    "tpu_check": ["jax[tpu]>=0.10,<0.11"],
    "test": [
        *("pytest>=7", "pytest-xdist>=3", "hypothesis>=6", "scipy>=1.10"),
        "pytest-randomly>=3.15",  # off unless `-p pytest_randomly` is given
        "httpx>=0.27",
        # A test builds the wheel; older ones do not know [project]'s license.
        "setuptools>=77",
        # The programs whose figures the tasks' figures must equal.
        *("scikit-learn>=1.3", "seqeval>=1.2.2", "nltk>=3.8"),
    ],
}
EXTRAS["dev"] = [
    *EXTRAS["test"],
    *EXTRAS["spark"],
    *EXTRAS["remote"],
    *EXTRAS["tpu_check"],
    *HUBS,
    *HUGGINGFACE,
    *LITERT,
    *ONNX,
    *SERVE,
    "nbclient>=0.9",
    "nbformat>=5",
    "ipykernel>=6",
    "nbstripout>=0.6",
    "pre-commit>=3",
]

setup(
    packages=list(PACKAGES),
    package_dir=PACKAGES,
    package_data={
        "albert_tf2": ["py.typed"],
        "albert_tf2.data": ["sample/*", "sample/*/*"],
        "albert_tf2.configs": ["*.json", "*.yaml"],
        "albert_tf2.starter": ["*.json", "*.md", "*.png", "*.txt"]
        + ["*.safetensors", "*.yaml"],
    },
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS,
)
