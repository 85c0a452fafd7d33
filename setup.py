"""Distribution metadata of pman; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "pman" / "__init__.py").read_text())[1]

SWARM = ["docker>=7.1,<8"]
OPENSHIFT = ["kubernetes>=29,<36", "openshift>=0.13.2,<0.14", "urllib3>=2.3,<3"]
DEV = [
    "pytest>=9,<10",
    "hypothesis>=6.150,<7",
    "jsonschema>=4.26,<5",
    "ruff==0.17.6",
    "mypy==2.4.1",
    "import-linter==2.16",
    "sphinx>=9,<10",
    "uvicorn==0.54.0",
    "uvloop==0.23.0",
    "pfurl==2.3.0.1",
    "httpie==3.2.4",
    "schemathesis==4.32.5",
    "openapi-spec-validator==0.9.0",
    *SWARM,
    *OPENSHIFT,
]

setup(
    name="pman",
    version=VERSION,
    description="One HTTP API for jobs on the host, on Docker Swarm and on OpenShift",
    long_description=(HERE / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["pman", "pman.*"]),
    package_data={"pman": ["py.typed"]},
    install_requires=[
        "pyzmq>=27,<28",
        "httptools>=0.7,<0.10",
        "msgspec>=0.20,<0.23",
        "configobj>=5.0.9,<6",
        "psutil>=7,<8",
        "prometheus-client>=0.22,<1",
    ],
    extras_require={
        "swarm": SWARM,
        "openshift": OPENSHIFT,
        "all": SWARM + OPENSHIFT,
        "dev": DEV,
    },
    entry_points={"console_scripts": ["pman = pman.cli:main", "pman_do = pman.pman_do:main"]},
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Environment :: No Input/Output (Daemon)",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: System :: Distributed Computing",
    ],
)
