"""What is fuzzed."""

from __future__ import annotations

from collections.abc import Mapping

from tests.fuzz import addresses, answers, documents, fields, templates
from tests.fuzz.formats import fuzzed
from tests.fuzz.hunt import Subject

SUBJECTS: Mapping[str, Subject] = {
    "sugarcrm": fuzzed("sugarcrm", "/p/rest/v10/bulk"),
    "guidewire": fuzzed("guidewire", "/p/rest/claim/v1/batch"),
    "agendize": fuzzed("agendize", "/api/2.3/batch"),
    "agendize-2.0": fuzzed("agendize", "/api/2.0/batch", version="2.0"),
    "truto": fuzzed("truto", "/batch-request", max_runs=20, max_pages=3, max_records=50),
    "answers": Subject(answers.run, answers.WORDS, answers.SEEDS),
    "addresses": Subject(addresses.run, addresses.WORDS, addresses.SEEDS),
    "fields": Subject(fields.run, fields.WORDS, fields.SEEDS),
    "documents": Subject(documents.run, documents.WORDS, documents.SEEDS),
    "templates": Subject(templates.run, templates.WORDS, templates.SEEDS),
}
