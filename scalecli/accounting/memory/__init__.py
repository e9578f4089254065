"""Memory of a training step by closed forms: one small function a term, summed over the moments of the step."""

from scalecli.accounting.memory.estimate import MemoryEstimate as MemoryEstimate
from scalecli.accounting.memory.estimate import estimate_memory as estimate_memory
from scalecli.accounting.memory.layout import Layout as Layout
from scalecli.accounting.memory.recipe import Recipe as Recipe
from scalecli.accounting.memory.terms import Term as Term
