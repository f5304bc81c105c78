"""Samplers, and the loop that continues prompts token by token."""

from keras_reformer.generation.hub import HubLoop as HubLoop
from keras_reformer.generation.loop import Decoder as Decoder
from keras_reformer.generation.loop import Loop as Loop
from keras_reformer.generation.prompts import stop_ids as stop_ids
from keras_reformer.generation.requests import Request as Request
from keras_reformer.generation.requests import generate as generate
from keras_reformer.generation.requests import row_seeds as row_seeds
from keras_reformer.generation.requests import stream as stream
from keras_reformer.generation.samplers import BeamSampler as BeamSampler
from keras_reformer.generation.samplers import GreedySampler as GreedySampler
from keras_reformer.generation.samplers import RandomSampler as RandomSampler
from keras_reformer.generation.samplers import Sampler as Sampler
from keras_reformer.generation.samplers import TopKSampler as TopKSampler
from keras_reformer.generation.samplers import TopPSampler as TopPSampler
from keras_reformer.generation.samplers import get_sampler as get_sampler
from keras_reformer.generation.samplers import settings_of as settings_of
from keras_reformer.generation.sources import NO_SOURCE as NO_SOURCE
from keras_reformer.generation.sources import Source as Source
from keras_reformer.generation.trace_cache import TraceCache as TraceCache

__all__ = [
    "NO_SOURCE",
    "BeamSampler",
    "Decoder",
    "GreedySampler",
    "HubLoop",
    "Loop",
    "RandomSampler",
    "Request",
    "Sampler",
    "Source",
    "TopKSampler",
    "TopPSampler",
    "TraceCache",
    "generate",
    "get_sampler",
    "row_seeds",
    "settings_of",
    "stop_ids",
    "stream",
]
