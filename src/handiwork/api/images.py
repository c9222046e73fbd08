"""`/api/images`: what sandboxes stand on. A build is told as it goes, a line of JSON at a time.

What an image is made of comes as the request's body: no path of this host is ever named.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
from litestar import Request, Router, delete, get, post, put
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.types import ASGIApp

from handiwork.api.bodies import body_of, whole_body
from handiwork.api.control import Control, Injected
from handiwork.api.errors import told
from handiwork.api.streams import Emit, LiveResponse
from handiwork.model.errors import HandiworkError, UnsupportedError, sole
from handiwork.model.image import ImageInfo, ImageProgress, check_image_name
from handiwork.model.recipe import MAX_RECIPE_BYTES, parse_recipe
from handiwork.model.wire import ImageFrame, Listing, PullBody, RegistryBody
from handiwork.sandboxes.images.building import Build
from handiwork.sandboxes.images.debian import from_recipe
from handiwork.sandboxes.images.dockerfile import from_dockerfile
from handiwork.sandboxes.images.reading import Unpacked, unpack
from handiwork.sandboxes.images.registry import parse_reference
from handiwork.sandboxes.images.rules import ImageLimits
from handiwork.sandboxes.images.upload import Upload
from handiwork.sandboxes.images.writing import Progress
from handiwork.sessions.pulls import CREDENTIALS, from_registry, put_credentials

MAX_UPLOAD_BYTES = ImageLimits().archive_bytes
NDJSON = "application/x-ndjson"
TOLD_SECONDS = 0.25

Make = Callable[[Build], Awaitable[Unpacked]]
FileName = Annotated[str, QueryParameter(min_length=1, max_length=1024)]


@get("/")
async def list_images(control: Injected) -> Listing[ImageInfo]:
    """List every image that is here; one without a name is kept for what may stand on it."""
    await control.images.resolve("host")
    return Listing(data=tuple(control.images.list()))


@get("/{name:str}")
async def get_image(control: Injected, name: FromPath[str]) -> ImageInfo:
    """Find one by its name or digest."""
    return control.images.info(name)


@delete("/{name:str}", status_code=204)
async def delete_image(control: Injected, name: FromPath[str]) -> None:
    """Forget a name, or a digest with all its names; the image goes with the last."""
    await control.images.remove(name)


@post("/{name:str}/import", status_code=200, request_max_body_size=MAX_UPLOAD_BYTES)
async def import_image(
    control: Injected, request: Request[Any, Any, Any], name: FromPath[str]
) -> ASGIApp:
    """Make an image of a tar: an OCI layout, a docker-archive, or a root directory."""
    check_image_name(name)

    async def make(upload: Upload, build: Build) -> Unpacked:
        return await build.unpack(
            lambda at, files, progress: unpack(upload.pieces(), at, files, progress=progress)
        )

    return await _uploaded(control, request, name, "archive", make)


@post("/{name:str}/dockerfile", status_code=200, request_max_body_size=MAX_UPLOAD_BYTES)
async def build_dockerfile(
    control: Injected,
    request: Request[Any, Any, Any],
    name: FromPath[str],
    file: FileName = "Dockerfile",
) -> ASGIApp:
    """Run a Dockerfile; the body is a tar of its context. FROM names an image that is here."""
    check_image_name(name)
    settings = control.settings

    async def make(upload: Upload, build: Build) -> Unpacked:
        return await from_dockerfile(
            upload.pieces(),
            file,
            build,
            control.images.resolve,
            first_id=settings.sandbox.first_id - 65_536,
            network=settings.images.build_network == "host",
        )

    return await _uploaded(control, request, name, "dockerfile", make)


@post("/{name:str}/recipe", status_code=200, request_max_body_size=MAX_RECIPE_BYTES)
async def build_recipe(
    control: Injected, request: Request[Any, Any, Any], name: FromPath[str]
) -> ASGIApp:
    """Build a Debian image; the body is the recipe's TOML."""
    check_image_name(name)
    recipe = parse_recipe(await whole_body(request))
    mirror = control.settings.images.debian_mirror
    return _building(
        control,
        request,
        name,
        f"recipe ({recipe.suite})",
        lambda build: from_recipe(recipe, build, mirror=mirror),
    )


@post("/{name:str}/pull", status_code=200)
async def pull_image(
    control: Injected,
    request: Request[Any, Any, Any],
    name: FromPath[str],
    data: JSONBody[PullBody],
) -> ASGIApp:
    """Fetch an image from a registry, by way of the egress proxy."""
    check_image_name(name)
    reference = parse_reference(data.reference)
    return _building(
        control,
        request,
        name,
        data.reference,
        lambda build: from_registry(
            reference, build, control.boundary, control.store.control_secrets
        ),
    )


@put("/{host:str}", status_code=204)
async def put_registry(
    control: Injected, host: FromPath[str], data: JSONBody[RegistryBody]
) -> None:
    """Keep the user and password of a registry; they go to it alone, and are never read back."""
    parse_reference(f"{host}/x:x")
    await put_credentials(control.store.control_secrets, host, data.user, data.password)


@delete("/{host:str}", status_code=204)
async def delete_registry(control: Injected, host: FromPath[str]) -> None:
    """Forget them."""
    await control.store.control_secrets.delete(CREDENTIALS + host)


async def _uploaded(
    control: Control,
    request: Request[Any, Any, Any],
    name: str,
    source: str,
    make: Callable[[Upload, Build], Awaitable[Unpacked]],
) -> ASGIApp:
    """Take the body first: only then is it known that all of it came."""
    upload = Upload(control.images.directory)
    try:
        async for piece in body_of(request):
            await asyncio.to_thread(upload.take, piece)
    except BaseException:
        upload.close()
        raise
    return _building(
        control, request, name, source, lambda build: make(upload, build), upload.close
    )


def _building(
    control: Control,
    request: Request[Any, Any, Any],
    name: str,
    source: str,
    make: Make,
    close: Callable[[], None] = lambda: None,
) -> ASGIApp:
    async def body(emit: Emit) -> None:
        try:
            async with _telling(emit) as progress:
                async with asyncio.timeout(control.settings.images.build_seconds):
                    info = await control.images.put(
                        name, make, source=source, now=control.now(), progress=progress
                    )
            control.sandboxes.to_prepare.set()  # some may have waited for this image
            await emit(_line(ImageFrame(image=info)))
        except TimeoutError:
            late = UnsupportedError("the build took longer than images.build_seconds")
            await emit(_line(ImageFrame(error=told(late)[1])))
        except HandiworkError as error:
            await emit(_line(ImageFrame(error=told(error)[1])))
        finally:
            close()

    return LiveResponse(body, media_type=NDJSON, stopping=request.app.state.stopping)


@asynccontextmanager
async def _telling(emit: Emit) -> AsyncIterator[Progress]:
    """Yield what takes progress, from any thread; the newest is told a few times a second."""
    newest: list[ImageProgress] = []

    def progress(stage: str, done: int, total: int) -> None:
        newest[:] = [ImageProgress(stage=stage, done=done, total=total)]

    async def tell() -> None:
        last = None
        while True:
            if newest and newest[0] != last:
                last = newest[0]
                await emit(_line(ImageFrame(progress=last)))
            await asyncio.sleep(TOLD_SECONDS)

    try:
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(tell())
            yield progress
            telling.cancel()
    except BaseExceptionGroup as raised:
        raise sole(raised) from None


def _line(frame: ImageFrame) -> bytes:
    return msgspec.json.encode(frame) + b"\n"


routes = Router(
    "/api/images",
    route_handlers=[
        list_images,
        get_image,
        delete_image,
        import_image,
        build_dockerfile,
        build_recipe,
        pull_image,
    ],
)
registries = Router("/api/registries", route_handlers=[put_registry, delete_registry])
