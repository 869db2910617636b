"""The user's own Python files: imported anew for every config, which keeps the bytes that it imported."""

from __future__ import annotations

import builtins
import importlib
import itertools
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path as FilePath
from types import CodeType, ModuleType


class UserFolder:
    """A folder of the user's as one config sees it: its modules import each other by the names of their files.

    It stands in `sys.modules` as a package of a name used once, with the folder's modules in it. So `helpers.py` of two
    folders, or of two versions of one folder, are two modules, and `import helpers` says the right one to each, now
    and whenever a function of theirs runs it. `contents` are the files imported so far, as they were then.
    """

    def __init__(self, folder: FilePath) -> None:
        self.folder = folder
        self.contents: dict[FilePath, bytes] = {}
        self.package = f"_layernet_user_{next(_NUMBERS)}"
        # an import statement calls __import__ of its module's builtins: the one place that knows who asks
        self.builtins = {**vars(builtins), "__import__": self._import}
        module = ModuleType(self.package)
        module.__path__ = [str(folder)]
        sys.modules[self.package] = module
        _FOLDERS[self.package] = self
        if _FINDER not in sys.meta_path:
            sys.meta_path.insert(0, _FINDER)
        importlib.invalidate_caches()  # a file may be a moment old

    def load(self, file: FilePath) -> ModuleType:
        """The module of a file in the folder. Raises what the file raises."""
        name = f"{self.package}.{file.stem}"
        if name not in sys.modules:
            loader = _Loader(name, str(file), self)
            spec = spec_from_file_location(name, file, loader=loader)
            assert spec is not None
            sys.modules[name] = module_from_spec(spec)  # annotations are looked up there
            try:
                loader.exec_module(sys.modules[name])
            except BaseException:
                del sys.modules[name]
                raise
        return sys.modules[name]

    def read(self, file: FilePath) -> bytes:
        """The content of a file, as it was when first asked for."""
        if file not in self.contents:
            self.contents[file] = file.read_bytes()
        return self.contents[file]

    def file_of(self, module: str) -> FilePath | None:
        """The file directly in the folder from which a module was imported, by the module's name; else None."""
        package, _, name = module.rpartition(".")
        return self.folder / f"{name}.py" if package == self.package else None

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """What `import` does in a module of the folder: as in a script, what stands beside it comes first."""
        top = name.partition(".")[0]
        if level or not self._holds(top):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        found = builtins.__import__(f"{self.package}.{name}", globals, locals, fromlist or (), 0)
        return found if fromlist else sys.modules[f"{self.package}.{top}"]

    def _holds(self, top: str) -> bool:
        if top == "layernet":  # of a checkout: a second copy would know no class of the first
            return False
        if f"{self.package}.{top}" in sys.modules:
            return True
        spec = PathFinder.find_spec(f"{self.package}.{top}", [str(self.folder)])
        if spec is None or spec.origin is not None:
            return spec is not None
        installed = find_spec(top)  # a mere directory is a package only where no other has its name
        return installed is None or installed.origin is None


class _Loader(SourceFileLoader):
    """Runs the bytes that its folder keeps, never those of a .pyc file: two edits in one second may be as long."""

    def __init__(self, fullname: str, path: str, owner: UserFolder) -> None:
        super().__init__(fullname, path)
        self.owner = owner

    def get_data(self, path: str) -> bytes:
        return self.owner.read(FilePath(path))

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = self.owner.builtins
        exec(self.get_code(module.__name__), module.__dict__)


class _Finder(MetaPathFinder):
    """Finds the modules of user folders, and of nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        owner = _FOLDERS.get(fullname.partition(".")[0])
        if owner is None:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None:
            return spec
        if isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.origin, owner)
            spec.cached = None
        else:  # an extension module: kept too
            owner.read(FilePath(spec.origin))
        return spec


_FINDER = _Finder()
_FOLDERS: dict[str, UserFolder] = {}
_NUMBERS = itertools.count(1)
