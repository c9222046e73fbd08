"""Images: what sandboxes stand on. Drivers see `image.Image` and `store.Images`, nothing else.

A driver is given one `Images` for all tiers. `await images.resolve(spec.image)` on create gives the
image that a name stands for now; its `digest` goes into the sandbox's state, and
`await images.find(digest)` gives the same image on every later start, whatever the name has come to
stand for. `images.held_by(...)` tells what digests a driver's states stand on: these are not removed.

As root `images.mounts.get(image, guest_agent)` gives the one mount of the image's file, for launchers.
"""
