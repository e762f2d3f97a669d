"""Looking at many latents at once: maps in the plane, and groups (appendix "Maps of slots").

Slots live in dozens of dimensions. Are there groups among them, and do the groups mean anything? The methods are those
of scikit-learn and of umap-learn; here they take slots as tensors, are seeded, and refuse what they cannot use. What a
group says about a property, `slotlib.svq.information` tells: to it a group is one more code.
"""

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from slotlib import check

Map = Literal["pca", "tsne", "umap"]
Grouping = Literal["kmeans", "agglomerative", "dbscan"]


MOST = 1e15
"""No latent is so large. scikit-learn's t-SNE ends the process where a square overflows or vanishes."""


def _points(latents: Float[Tensor, "points dim"], least: int) -> np.ndarray:
    check.tensor("latents", latents, "floating point", "points dim")
    if len(latents) < least or not latents.shape[1]:
        raise ValueError(f"latents must be at least {least} points of one number or more, got {list(latents.shape)}")
    if not latents.abs().amax() < MOST:
        raise ValueError(f"latents must be finite and below {MOST:g} in size, got NaN, infinite or larger ones")
    return latents.detach().cpu().double().numpy()


def embed(
    latents: Float[Tensor, "points dim"], method: Map = "pca", dims: int = 2, seed: int = 0, **options: Any
) -> Float[Tensor, "points dims"]:
    """Lay latents out in few dimensions; in one point, those that are all the same, as slots are that collapsed.

    Args:
        latents: one row for each, such as the slots of many scenes.
        method: "pca", the directions of largest variance: linear, and distances mean something. "tsne" (van der Maaten
            & Hinton, 2008) and "umap" (McInnes et al., 2018, 1802.03426) keep neighbours together; how far apart
            groups lie, and how large they are drawn, means nothing.
        dims: of the map.
        seed: of the methods that start at random.
        options: passed on to scikit-learn's `PCA` or `TSNE` or to `umap.UMAP`, such as perplexity=20.

    Raises:
        ValueError: an unknown method, latents of another shape, NaN or huge, or too few for the method; dims below 1
            or more than latents have.
        ImportError: "umap" without umap-learn (`pip install 'slotlib[umap]'`).
    """
    check.choice("method", method, Map)
    check.whole("dims", dims)
    check.whole("seed", seed, least=0)
    points = _points(latents, 4)
    if dims > min(points.shape):
        raise ValueError(f"dims must be at most {min(points.shape)} for {list(points.shape)} latents, got {dims}")
    if points.std(axis=0).max() < 1 / MOST:
        return latents.new_zeros(len(points), dims)
    if method == "pca":
        from sklearn.decomposition import PCA

        made = PCA(dims, random_state=seed, **options)
    elif method == "tsne":
        from sklearn.manifold import TSNE

        # scikit-learn wants a perplexity below the number of points.
        options = {"perplexity": min(30.0, (len(points) - 1) / 3), **options}
        made = TSNE(dims, random_state=seed, **options)
    else:
        try:
            from umap import UMAP
        except ImportError as missing:
            raise ImportError("method='umap' needs umap-learn: pip install 'slotlib[umap]'") from missing
        options = {"n_neighbors": min(15, len(points) - 1), "n_jobs": 1, **options}
        made = UMAP(n_components=dims, random_state=seed, **options)
    threads = torch.get_num_threads()
    try:
        return torch.from_numpy(np.asarray(made.fit_transform(points))).to(latents.dtype)
    finally:
        torch.set_num_threads(threads)  # UMAP's compiler gives PyTorch as many as it has itself


def cluster(
    latents: Float[Tensor, "points dim"], method: Grouping = "kmeans", count: int = 8, seed: int = 0, **options: Any
) -> Int[Tensor, "points"]:
    """The group of each latent, numbered from 0.

    Args:
        latents: one row for each.
        method: "kmeans", round groups of a given number; "agglomerative", which joins the two nearest groups (in Ward's
            sense) until the number is reached; "dbscan", which finds regions where latents lie close (Ester et al.,
            1996), as many as there are. Those that lie alone get -1.
        count: number of groups, without effect on "dbscan".
        seed: of the methods that start at random.
        options: passed on to scikit-learn's `KMeans`, `AgglomerativeClustering` or `DBSCAN`. DBSCAN's eps is by default
            the distance within which nine of ten latents have `min_samples` (5) neighbours.

    Raises:
        ValueError: an unknown method, latents of another shape, NaN, or fewer than groups or neighbours.
    """
    check.choice("method", method, Grouping)
    check.whole("count", count)
    check.whole("seed", seed, least=0)
    if method == "dbscan":
        from sklearn.cluster import DBSCAN
        from sklearn.neighbors import NearestNeighbors

        options = {"min_samples": 5, **options}
        check.whole("min_samples", options["min_samples"])
        points = _points(latents, options["min_samples"])
        if "eps" not in options:
            distance, _ = NearestNeighbors(n_neighbors=options["min_samples"]).fit(points).kneighbors(points)
            options["eps"] = max(float(np.quantile(distance[:, -1], 0.9)), np.finfo(float).tiny)
        found = DBSCAN(**options).fit_predict(points)
    elif method == "kmeans":
        from sklearn.cluster import KMeans

        found = KMeans(count, random_state=seed, **{"n_init": 4, **options}).fit_predict(_points(latents, count))
    else:
        from sklearn.cluster import AgglomerativeClustering

        found = AgglomerativeClustering(count, **options).fit_predict(_points(latents, count))
    return torch.from_numpy(found).long()
