"""The same pipeline in the form in which hospitals have it: services named trtis, and the image clara/dicom-writer."""

from __future__ import annotations

import pytest

from carina.operators.table import BUILT_IN
from carina.pipeline.check import check_text
from carina.pipeline.definition import parse_definition

SERVICE = """
  services:
  - name: trtis
    # TensorRT Inference Server, required by this AI application.
    container:
      image: nvcr.io/nvidia/tensorrtserver
      tag: 19.08-py3
      command: ["trtserver", "--model-store=$(NVIDIA_CLARA_SERVICE_DATA_PATH)/models"]
    requests:
      gpu: 1
      memory: 8192
    # services::connections defines how the TRTIS service is expected to be accessed.
    connections:
      http:
      # The name of the connection is used to populate an environment variable inside the operator's container.
      - name: NVIDIA_CLARA_TRTISURI
        port: 8000
      file:
      - name: NVIDIA_CLARA_SERVICE_DATA_PATH
        path: /var/www
"""

OLDER = f"""
api-version: 0.4.0
name: covid-pipeline
operators:
- name: dicom-reader
  description: Converts DICOM instances into MHD.
  container:
    image: clara/dicom-reader
    tag: latest
  input:
  - path: /input
  output:
  - path: /output
- name: lung-segmentation
  description: Segmentation of the lungs using DL trained model.
  container:
    image: clara/ai-lung
    tag: 0.5.0
    command: ["python", "main.py"]
  requests:
    gpu: 1
    memory: 8192
  input:
  - from: dicom-reader
    path: /input
  output:
  - path: /output
    name: segmentation
  - path: /publish
    name: rendering{SERVICE}
- name: covid-lesion-segmentation
  container:
    image: clara/ai-covid-lesion
    tag: latest
  requests:
    gpu: 1
  input:
  - from: dicom-reader
    path: /input
  output:
  - path: /output
    name: segmentation
  - path: /publish
    name: rendering{SERVICE}
- name: dicom-writer
  description: Converts MHD into DICOM instance and stores the binary output.
  container:
    image: clara/dicom-writer
    tag: latest
  input:
  - from: lung-segmentation
    name: segmentation
    path: /input
  - path: /dicom
  output:
  - path: /output
    name: dicom
- name: register-dicom-output
  description: Register converted DICOM instances with Results Service to be sent to external DICOM devices.
  container:
    image: clara/register-results
    tag: latest
    command: ["python", "register.py", "--agent", "ClaraSCU", "--data", "[\\"MYPACS\\"]"]
  input:
  - from: dicom-writer
    name: dicom
    path: /input
- name: register-volume-images-for-rendering
  container:
    image: clara/register-results
    tag: latest
    command: ["python", "register.py", "--agent", "renderserver"]
  input:
  - from: covid-lesion-segmentation
    name: rendering
    path: /input
"""


def test_a_definition_of_the_older_form_has_no_mistake() -> None:
    assert check_text(OLDER, "older.yaml", BUILT_IN) == []


def test_its_services_are_read_with_what_they_ask_for() -> None:
    services = [service for step in parse_definition(OLDER).steps for service in step.services]
    assert [service.name for service in services] == ["trtis", "trtis"]
    assert {(service.requests.gpu, service.requests.memory_mb) for service in services} == {(1, 8192)}
    assert [(one.kind, one.name, one.port, one.path) for one in services[0].connections] == [
        ("http", "NVIDIA_CLARA_TRTISURI", 8000, ""),
        ("file", "NVIDIA_CLARA_SERVICE_DATA_PATH", None, "/var/www"),
    ]


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        (
            "port: 8000",
            "port: 80000",
            "port of service 'trtis' of operator 'lung-segmentation' is '80000'",
        ),
        ("gpu: 1\n      memory", "gpus: 1\n      memory", "unknown key 'gpus' in 'requests' of service 'trtis'"),
        ("nvidia/tensorrtserver", "nvidia/tensorrt", "asks for the service 'nvcr.io/nvidia/tensorrt'; known to it: "),
        ("      http:", "      grpc:", "unknown key 'grpc' in 'connections' of service 'trtis'"),
    ],
)
def test_what_is_wrong_in_a_service_is_named(right: str, wrong: str, expected: str) -> None:
    problems = check_text(OLDER.replace(right, wrong, 1), "older.yaml", BUILT_IN)
    assert any(expected in problem.message for problem in problems), problems


def test_the_writers_output_goes_where_dicom_objects_go() -> None:
    wrong = OLDER.replace("  - path: /dicom\n", "  - from: dicom-reader\n    path: /dicom\n")
    (problem,) = check_text(wrong, "older.yaml", BUILT_IN)
    assert (
        "'dicom-reader' /output gives Volume, but 'dicom-writer' /dicom takes Series or VolumeFile" in problem.message
    )
