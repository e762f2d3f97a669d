"""The library reference: each module of slotlib is a page of the book, made from its source.

`slotlib/metrics.py` is a document as any `.md` is: _toc.yml lists it, and a link to the file leads to its page. It
says what the source says (docstrings, signatures in the author's own words, values and the comments behind them), and
which chapters use the module; chapters name their modules in turn. Nothing of the library is imported.
"""

import ast
import functools
import inspect
import json
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from mentions import around
from myst_parser.parsers.sphinx_ import MystParser
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]
LIBRARY = "slotlib"
CONTENTS = "book/reference"
LONGEST = 60
"""Characters of a value that is shown; a longer one is read in the source."""

Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
Lines = Iterator[str]
"""Of Markdown, in which docstrings are written."""


# --- what a module says ---


class Module:
    """A module as its source has it, `docname` being its path without the ending."""

    def __init__(self, docname: str):
        self.docname = docname
        self.name = docname.removesuffix("/__init__").replace("/", ".")
        self.text = (ROOT / f"{docname}.py").read_text("utf-8")
        self.tree = ast.parse(self.text)
        self.public = public(self.tree.body)

    @functools.cached_property
    def doc(self) -> str:
        return ast.get_docstring(self.tree) or ""

    @functools.cached_property
    def purpose(self) -> str:
        """The first sentence of the docstring, without the chapter."""
        start = re.sub(r" \(chapter [^)]*\)", "", " ".join(self.doc.partition("\n\n")[0].split()))
        return re.split(r"(?<=[.?]) (?=[A-Z])", start)[0]

    @property
    def short(self) -> str:
        return self.name.removeprefix(f"{LIBRARY}.")

    @functools.cached_property
    def imports(self) -> dict[str, str]:
        """What the names stand for that it takes from elsewhere in the library."""
        found = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == LIBRARY:
                found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        return found


def public(body: list[ast.stmt]) -> dict[str, Definition]:
    """What a module or a class offers: no underscore before it, or two with an explanation."""
    found: dict[str, Definition] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            explained = node.name.startswith("__") and node.name != "__init__" and ast.get_docstring(node)
            if explained or not node.name.startswith("_"):
                found.setdefault(node.name, node)  # of a property the part that reads it
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                parts = target.elts if isinstance(target, ast.Tuple) else [target]
                names = [part.id for part in parts if isinstance(part, ast.Name)]
                found |= {name: node for name in names if not name.startswith("_") and name != "logger"}
    return found


@functools.cache
def groups() -> dict[str, list[Module]]:
    """All modules as _toc.yml orders and groups them."""
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))["parts"]
    entry = next(entry for part in parts for entry in part["chapters"] if entry["file"] == CONTENTS)
    return {part["caption"]: [Module(each["file"]) for each in part["sections"]] for part in entry["subtrees"]}


@functools.cache
def library() -> dict[str, Module]:
    """The modules by their dotted names."""
    return {module.name: module for group in groups().values() for module in group}


@functools.cache
def known() -> dict[str, str]:
    """Everything that has an entry: its full name, and the module on whose page it stands."""
    names = {}
    for module in library().values():
        names[module.name] = module.name
        for name, node in module.public.items():
            members = public(node.body) if isinstance(node, ast.ClassDef) else ()
            for full in (f"{module.name}.{name}", *(f"{module.name}.{name}.{member}" for member in members)):
                names[full] = module.name
    return names


def full_name(name: str, module: str = "", kind: str = "") -> str | None:
    """What `name` means within a module, or a class of it. None if it is nothing of the library."""
    first, dot, rest = name.partition(".")
    around = [f"{module}.{kind}.{name}", f"{module}.{name}"]
    if module in library() and first in library()[module].imports:
        around.append(library()[module].imports[first] + dot + rest)
    for candidate in (*around, f"{LIBRARY}.{name}", name):
        if candidate in known():
            return candidate
        package, _, last = candidate.rpartition(".")
        if package in library() and last in library()[package].imports:  # it is handed on
            return full_name(library()[package].imports[last])
    return None


# --- which chapters use it ---


@functools.cache
def uses() -> dict[str, list[str]]:
    """The modules that each notebook takes something from, by its docname."""
    found = {}
    for path in sorted([*ROOT.glob("chapters/*.ipynb"), *ROOT.glob("book/*.ipynb")]):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        used = set().union(*map(modules_in, sources))
        found[path.relative_to(ROOT).with_suffix("").as_posix()] = [name for name in library() if name in used]
    return found


def modules_in(code: str) -> set[str]:
    """The modules that define what a cell takes from the library."""
    taken = set()
    for node in ast.walk(ast.parse(re.sub(r"^\s*[%!].*$", "", code, flags=re.MULTILINE))):
        if isinstance(node, ast.ImportFrom):
            taken |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            taken |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            taken.add(ast.unparse(node))
    full = {full_name(name) for name in taken if name.startswith(f"{LIBRARY}.")}
    return {known()[name] for name in full if name}


def name_modules(app: Sphinx, doctree: nodes.document) -> None:
    """The last line of a chapter says which modules it uses."""
    modules = uses().get(app.env.docname)
    if not modules:
        return
    line = nodes.paragraph("", "Modules of this chapter: ", classes=["modules"])
    for name in modules:
        line += [_to(name, [nodes.literal("", library()[name].short)], app.env.docname), nodes.Text(", ")]
    line[-1] = nodes.Text(".")
    next(doctree.findall(nodes.section)).append(line)


class House(SphinxDirective):
    """The modules in their groups: what each is for, and the chapters that use it."""

    def run(self) -> list[nodes.Node]:
        lines = []
        for caption, modules in groups().items():
            lines += [f"## {caption}", "", "| module | what it is for | used in |", "|---|---|---|"]
            for module in modules:
                link = f"[`{module.short}`](/{module.docname}.py)"
                lines.append(f"| {link} | {module.purpose} | {', '.join(_chapters(module))} |")
            lines.append("")
        inside = nodes.Element()
        self.state.nested_parse(StringList(lines, CONTENTS), self.content_offset, inside, match_titles=True)
        return inside.children


def _chapters(module: Module) -> Iterator[str]:
    for docname, used in uses().items():
        number = re.match(r"chapters/(\d+)_", docname)
        if number and module.name in used:
            yield f"[{int(number[1])}](/{docname}.ipynb)"


# --- its page ---


class ModuleParser(MystParser):
    """Reads a module as a document."""

    supported = ("python",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        docname = document.settings.env.docname
        module = next(each for each in library().values() if each.docname == docname)
        super().parse("\n".join(page(module)), document)


def page(module: Module) -> Lines:
    yield from (f"# {module.name}", f"```{{py:module}} {module.name}", "```", "")
    above = "../" * module.docname.count("/")
    notebooks = [f"[](/{docname}.ipynb)" for docname, used in uses().items() if module.name in used]
    source = f'<a href="{above}_modules/{module.name.replace(".", "/")}.html">Source</a>'
    if module.public:
        used = f" · used in {' · '.join(notebooks)}" if notebooks else ""
        yield from ("```{div} uses", source + used, "```")
    yield from docstring(module.doc)
    handed_on = (full_name(name) for name in module.imports.values() if name.startswith(f"{module.name}."))
    names = [f"{{py:obj}}`~{name}`" for name in handed_on if name]
    if names:
        yield from (f"From its modules: {', '.join(names)}.", "")
    for name, node in module.public.items():
        yield from entry(module, module.tree.body, name, node)


def entry(module: Module, body: list[ast.stmt], name: str, node: Definition, *, inside: bool = False) -> Lines:
    """One public name of a module, or of a class."""
    if isinstance(node, ast.ClassDef):
        yield from (f"::::{{py:class}} {name}{construction(node)}", "", *_bases(node), "")
        yield from docstring(ast.get_docstring(node))
        for member, part in public(node.body).items():
            yield from entry(module, node.body, member, part, inside=True)
        yield "::::"
        return
    options, doc = {}, None
    if isinstance(node, ast.FunctionDef):
        decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
        doc = ast.get_docstring(node)
        if "property" in decorators:
            kind, options["type"] = "property", annotation(node.returns)
        else:
            kind = "method" if inside else "function"
            options = {option: "" for option in ("classmethod", "staticmethod") if option in decorators}
            name += signature(node, bound=inside and "staticmethod" not in decorators)
    else:
        kind, doc = "attribute" if inside else "data", doc_of_value(module, body, node)
        if isinstance(node, ast.AnnAssign):
            options["type"] = annotation(node.annotation)
        value = ast.get_source_segment(module.text, node.value) if node.value and _is_alone(node) else ""
        if value and len(value) <= LONGEST and "\n" not in value:
            options["value"] = value
    if inside:
        options["no-contents-entry"] = ""
    yield f":::{{py:{kind}}} {name}"
    yield from (f":{option}: {json.dumps(value, ensure_ascii=False)}" for option, value in options.items())
    yield from ("", *docstring(doc), ":::")


def _is_alone(node: ast.Assign | ast.AnnAssign) -> bool:
    return isinstance(node, ast.AnnAssign) or isinstance(node.targets[0], ast.Name)


def _bases(node: ast.ClassDef) -> Lines:
    kinds = [*map(ast.unparse, node.decorator_list), *map(ast.unparse, node.bases)]
    for kind, words in (("dataclass", "A dataclass."), ("NamedTuple", "A named tuple.")):
        if any(each.startswith(kind) for each in kinds):
            yield words
    bases = [f"`{base}`" for base in map(ast.unparse, node.bases) if base != "NamedTuple"]
    if bases:
        yield f"Extends {', '.join(bases)}."


def docstring(text: str | None) -> Lines:
    """Google's sections become lists."""
    section = False
    for line in (text or "").splitlines():
        if line in ("Args:", "Returns:", "Raises:", "Yields:"):
            section = True
            yield from (f"**{line.rstrip(':')}**", "")
        elif section and (item := re.match(r"    (\S[^:]*): (.*)", line)):
            yield f"- `{item[1]}`: {item[2]}"
        else:
            section = section and (not line or line.startswith(" "))
            yield line.removeprefix("  ") if section else line
    yield ""


def doc_of_value(module: Module, body: list[ast.stmt], node: ast.Assign | ast.AnnAssign) -> str:
    """What is said of a value: the string below it, else the comment behind it."""
    after = body[body.index(node) + 1 :][:1]
    if after and isinstance(after[0], ast.Expr) and isinstance(after[0].value, ast.Constant):
        return inspect.cleandoc(str(after[0].value.value))
    line = module.text.splitlines()[cast(int, node.end_lineno) - 1]
    return line.encode()[node.end_col_offset :].decode().strip().removeprefix("# ")


def construction(node: ast.ClassDef) -> str:
    """What a class is called with, where it says so itself. The fields of others follow one by one."""
    init = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
    return signature(init, bound=True) if init else ""


def signature(node: ast.FunctionDef, *, bound: bool = False) -> str:
    """Arguments and result as they are written, without `self` if bound; names in quotes lose these."""
    arguments = deepcopy(node.args)
    everything = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
    for each in (*everything, arguments.vararg, arguments.kwarg):
        if each and each.annotation:
            each.annotation = _unquoted(each.annotation)
    if bound:
        (arguments.posonlyargs or arguments.args).pop(0)
    return f"({ast.unparse(arguments)})" + (f" -> {annotation(node.returns)}" if node.returns else "")


def annotation(node: ast.expr | None) -> str:
    return ast.unparse(_unquoted(node)) if node else ""


def _unquoted(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return ast.parse(node.value, mode="eval").body
    return node


# --- what is named leads to where it is explained ---


def link_names(app: Sphinx, doctree: nodes.document) -> None:
    """Names in signatures and in the code of docstrings; on all pages what is written as `slotlib/metrics.py`."""
    module = next((each.name for each in library().values() if each.docname == app.env.docname), "")
    for reference in list(doctree.findall(addnodes.pending_xref)) if module else ():
        if reference["refdomain"] == "py" and reference["reftype"] != "mod":
            target = full_name(reference["reftarget"], module, reference.get("py:class") or "")
            reference.replace_self(_to(target, reference.children, app.env.docname) if target else reference.children)
    for code in list(doctree.findall(nodes.literal)):
        # At any depth: a link in a link has no text.
        if not any(isinstance(each, addnodes.pending_xref | nodes.reference | nodes.title) for each in around(code)):
            target = _meant(code, module)
            if target:
                code.replace_self(_to(target, [code.deepcopy()], app.env.docname))


def _meant(code: nodes.literal, module: str) -> str | None:
    file = re.fullmatch(rf"(?:{LIBRARY}/)?([\w/]+)\.py", code.astext())
    if file:
        return full_name(f"{LIBRARY}.{file[1].replace('/', '.')}")
    name = code.astext().removesuffix("()")
    target = full_name(name, module, _class_around(code)) if module else None
    # A word such as `tfrecord` is a module only in the docstring of its package.
    is_word = target in library() and "." not in name and target != f"{module}.{name}"
    return None if is_word else target


def _class_around(node: nodes.Element) -> str:
    for each in around(node):
        if isinstance(each, addnodes.desc) and each["objtype"] == "class":
            return cast(nodes.Element, each[0])["fullname"]
    return ""


def _to(target: str, shown: list[nodes.Node], page: str) -> addnodes.pending_xref:
    where = {"refdoc": page, "refdomain": "py", "reftype": "obj", "reftarget": target}
    return addnodes.pending_xref("", *shown, **where)


def name_scripts(app: Sphinx, doctree: nodes.document) -> None:
    """Of a link to Python that is no page of the book its path is left."""
    for link in list(doctree.findall(addnodes.pending_xref)):
        path = f"{link['reftarget']}.py"
        if link["reftype"] == "myst" and link["reftarget"] not in app.env.found_docs and (ROOT / path).is_file():
            link.replace_self([*link.children, nodes.Text(" ("), nodes.literal("", path), nodes.Text(")")])


def show_no_file(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """A module's source is read in the browser: its page offers no `.py` to download."""
    if page.startswith(f"{LIBRARY}/"):
        del context["page_source_suffix"]
    if page.startswith((f"{LIBRARY}/", "_modules/", "chapters/", "book/")):
        app.add_css_file("reference.css")


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.viewcode")
    app.add_source_suffix(".py", "python")
    app.add_source_parser(ModuleParser)
    app.add_directive("house", House)
    app.connect("doctree-read", name_modules)
    app.connect("doctree-read", link_names)
    app.connect("doctree-read", name_scripts)
    app.connect("html-page-context", show_no_file)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
