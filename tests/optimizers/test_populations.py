"""Searches by values alone: closed forms, invariances, the package cmaes, resume."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sanbu.config import ConfigError, SanbuError
from sanbu.noise import Noise
from sanbu.objectives.objective import Loss, Turn
from sanbu.optimizers.cma import CMA, Adapting, DiagonalCMA, Full, diagonal_rates, full_rates
from sanbu.optimizers.evolution import SNES, Evolution, slope, utilities
from sanbu.optimizers.genetic import Genetic
from sanbu.optimizers.gradient import SGD, AdamW
from sanbu.optimizers.population import (
    Flat,
    average_ranks,
    centred_ranks,
    expected_by_rank,
    generator_of,
    losses_of,
    normal,
)  # fmt: skip
from sanbu.optimizers.search import NotFinite, Problem
from sanbu.testing import build_seeded, check_search

KINDS = {
    "genetic": Genetic(population=32, parents=8), "evolution": Evolution(population=32), "snes": SNES(population=32),
    "cma": CMA(), "diagonal-cma": DiagonalCMA(),
    "tournament": Genetic(population=32, selection="tournament", crossover=0.5, elite=2),
    "plain": Genetic(population=32, parents=8, crossover=0, adaptation=0),
}  # fmt: skip
every_kind = pytest.mark.parametrize("kind", KINDS)


class Point(nn.Module):
    """Parameters alone: its output is the vector."""

    def __init__(self, size, dtype=torch.double):
        super().__init__()
        self.place = nn.Parameter(torch.linspace(-1, 1, size, dtype=dtype))

    def forward(self):
        return self.place


def problem_of(module, function, step=0):
    """A problem whose loss is a function of the parameters."""
    loss = lambda models, batch: Loss({"rows": function(models["model"]())})
    turn = Turn("model", {"x": torch.zeros(1)}, loss, lambda batch: {"rows": 1.0})
    return Problem({"model": module}, turn, {"model": module}, Noise("search", step))


def run(config, module, function, steps, first=0, search=None):
    """Some generations; returns the search and its metrics."""
    search = search or config.build({"model": module}, steps)
    return search, [search.step(problem_of(module, function, first + step)) for step in range(steps)]


def sphere(x):
    return (x - 0.3).square().sum()


@every_kind
def test_conformance(kind):
    check_search(KINDS[kind], 20)


@every_kind
def test_it_finds_the_minimum_of_a_sphere(kind):
    module = Point(4)
    run(KINDS[kind], module, sphere, 400)
    assert float(sphere(module.place.detach())) < 0.02


@pytest.mark.parametrize("kind", ["evolution", "snes", "cma", "diagonal-cma"])
def test_a_flat_loss_moves_nothing(kind):
    module = Point(6)
    before = module.place.detach().clone()
    run(KINDS[kind], module, lambda x: (x * 0).sum() + 1.0, 1)
    if kind in ("evolution", "snes"):
        assert module.place.equal(before)


def test_a_flat_loss_moves_nothing_for_any_number_of_members():
    """The weights of SNES sum to 0 only up to rounding, for 26 members for example."""
    module = Point(6)
    before = module.place.detach().clone()
    search, _ = run(SNES(population=26), module, lambda x: (x * 0).sum() + 1.0, 3)
    assert module.place.equal(before) and (search.deviation == 0.05).all()


@every_kind
def test_an_increasing_function_of_the_loss_changes_nothing(kind):
    places = []
    for change in (lambda loss: loss, lambda loss: loss.exp() * 3 - 7):
        module = Point(5)
        run(KINDS[kind], module, lambda x, change=change: change(sphere(x)), 12)
        places.append(module.place.detach().clone())
    assert places[0].equal(places[1])


@every_kind
def test_a_saved_search_goes_on_bit_for_bit(kind):
    module, other = Point(5), Point(5)
    search, _ = run(KINDS[kind], module, sphere, 5)
    again = KINDS[kind].build({"model": other}, 5)
    other.load_state_dict(module.state_dict())
    again.load_state_dict(copy.deepcopy(search.state_dict()))
    run(None, module, sphere, 5, 5, search)
    run(None, other, sphere, 5, 5, again)
    assert module.place.equal(other.place)


# -- evolution strategies --------------------------------------------------------------------------------------------


def test_the_slope_of_a_linear_function_is_exact_for_orthonormal_directions():
    weights = torch.randn(6, dtype=torch.double)
    directions = torch.linalg.qr(torch.randn(6, 6, dtype=torch.double))[0] * 6**0.5
    mean, deviation = torch.randn(6, dtype=torch.double), 0.3
    better, worse = ((mean + sign * deviation * directions) @ weights for sign in (1, -1))
    torch.testing.assert_close(slope(directions, better, worse, deviation), weights, rtol=1e-12, atol=1e-12)


def test_the_slope_of_a_quadratic_is_unbiased():
    """Its mean over draws is the gradient at the mean: 10,000 pairs of deviation at most 4 per coordinate."""
    curvature, mean = torch.diag(torch.tensor([1.0, 2.0, 3.0])).double(), torch.tensor([1.0, -1.0, 0.5]).double()
    value = lambda x: 0.5 * ((x @ curvature) * x).sum(-1)
    directions = torch.randn(10_000, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    found = slope(directions, value(mean + 0.1 * directions), value(mean - 0.1 * directions), 0.1)
    assert (found - curvature @ mean).abs().max() < 4 * 4 / 100


def test_antithetic_differences_of_an_even_function_are_zero():
    directions = torch.randn(20, 5, dtype=torch.double)
    value = lambda x: x.square().sum(1).cos()
    assert slope(directions, value(directions), value(-directions), 0.1).abs().max() == 0


@pytest.mark.parametrize(
    "inner", [SGD(learning_rate=0.1, weight_decay=0.5), AdamW(learning_rate=0.1, weight_decay=0.5)]
)
def test_weight_decay_is_on_the_mean(inner):
    """A flat loss leaves the decay alone: m <- (1 - rate decay) m. AdamW warms up: its first rate is 1 / 20."""
    module = nn.Linear(2, 2, bias=False).double()
    before = module.weight.detach().clone()
    function = lambda weights: 0 * weights.sum()
    Evolution(population=6, inner=inner).build({"model": module}, 1000).step(problem_of_layer(module, function))
    rate = 0.1 if isinstance(inner, SGD) else 0.1 / 20
    torch.testing.assert_close(module.weight.detach(), before * (1 - 0.5 * rate), rtol=1e-12, atol=1e-12)


def problem_of_layer(module, function):
    """A problem whose loss is a function of the output for ones."""
    loss = lambda models, batch: Loss({"rows": function(models["model"](batch["x"]))})
    turn = Turn("model", {"x": torch.ones(1, 2).double()}, loss, lambda batch: {"rows": 1.0})
    return Problem({"model": module}, turn, {"model": module}, Noise("search", 0))


def test_the_inner_search_moves_the_mean_by_the_estimate():
    module = Point(5)
    before = module.place.detach().clone()
    run(Evolution(population=8, deviation=0.1, inner=SGD(learning_rate=0.3)), module, sphere, 1)
    directions = normal(generator_of(Noise("search", 0), before.device), before, 4, 5)
    members = torch.cat((before + 0.1 * directions, before - 0.1 * directions))
    ranks = centred_ranks(torch.stack([sphere(x) for x in members]))
    expected = before - 0.3 * slope(directions, ranks[:4], ranks[4:], 0.1)
    torch.testing.assert_close(module.place.detach(), expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(SanbuError, match="optimizer.inner: given 'snes', allowed: a search along the gradient"):
        Evolution(inner=SNES()).build({"model": Point(3)}, 1)


def test_ranks():
    assert average_ranks(torch.tensor([3.0, 1.0, 3.0, torch.inf])).tolist() == [1.5, 0.0, 1.5, 3.0]
    assert centred_ranks(torch.ones(4)).tolist() == [0.0] * 4
    weights = utilities(6)
    assert float(weights.sum()) == pytest.approx(0, abs=1e-12) and (weights.diff() <= 0).all()
    shared = expected_by_rank(torch.tensor([2.0, 1.0, 2.0, 5.0, 0.0, 6.0]), weights)
    assert shared[0] == shared[2] == (weights[2] + weights[3]) / 2 and shared[4] == weights[0]


# -- the genetic algorithm -------------------------------------------------------------------------------------------


def test_the_elite_never_worsens_on_fixed_rows():
    module = Point(6)
    _, found = run(Genetic(population=16, parents=4, mutation=0.3), module, sphere, 40)
    lowest = [metrics["lowest"] for metrics in found]
    assert lowest == sorted(lowest, reverse=True) and lowest[-1] < lowest[0]
    assert float(sphere(module.place.detach())) == pytest.approx(lowest[-1])


def test_without_mutation_the_population_becomes_its_best_member():
    module = Point(4)
    config = Genetic(population=12, parents=3, mutation=0.4, adaptation=0)
    search, _ = run(config, module, sphere, 3)
    best = search.genes[search.losses.argmin()].clone()
    search.config = config.model_copy(update={"mutation": 0.0, "parents": 1})
    search.mutation.zero_()
    run(None, module, sphere, 1, 3, search)
    assert (search.genes == best).all()


def test_one_parent_and_no_elite_is_a_hill_climber():
    """(1, n): the same draws in ten lines."""
    module = Point(5)
    config = Genetic(population=8, parents=1, elite=0, mutation=0.2, crossover=0, adaptation=0)
    run(config, module, sphere, 15)
    place = Point(5).place.detach()
    for step in range(15):
        generator = generator_of(Noise("search", step), place.device)
        torch.randint(1, (8,), generator=generator)
        children = place + torch.tensor(0.2) * normal(generator, place, 8, 5)
        losses = torch.stack([sphere(child) for child in children])
        place = children[losses.argmin()]
    assert module.place.equal(place)


def test_a_generation_is_rebuilt_from_its_parents_and_the_key():
    """Genomes from seeds are the genomes: all draws follow from the key of the step."""
    module = Point(6)
    search, _ = run(KINDS["tournament"], module, sphere, 3)
    before = copy.deepcopy(search.state_dict())
    run(None, module, sphere, 1, 3, search)
    again = KINDS["tournament"].build({"model": Point(6)}, 1)
    again.load_state_dict(before)
    genes, mutation = again.offspring(generator_of(Noise("search", 3), search.genes.device))
    assert genes.equal(search.genes) and mutation.equal(search.mutation)
    other, _ = again.offspring(generator_of(Noise("search", 4), search.genes.device))
    assert not other[2:].equal(genes[2:])


def test_crossover_takes_each_gene_from_one_of_two_parents():
    module = Point(50)
    search = Genetic(population=4, parents=2, elite=0, crossover=1.0, mutation=0.0).build({"model": module}, 1)
    search.genes = torch.stack([torch.full((50,), float(n), dtype=torch.double) for n in range(4)])
    search.losses = torch.tensor([0.0, 1.0, 2.0, 3.0])
    genes, _ = search.offspring(torch.Generator().manual_seed(3))
    assert set(genes.unique().tolist()) <= {0.0, 1.0}
    assert any(5 < float(child.sum()) < 45 for child in genes)  # both parents gave genes


# -- CMA-ES ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cma", "diagonal-cma"])
@pytest.mark.parametrize("population", [6, 9, 40])
def test_the_path_is_that_of_the_package_cmaes(kind, population):
    """Fed with the same draws: mean, step size, covariance and paths after 50 generations."""
    cmaes = pytest.importorskip("cmaes")
    scales = torch.logspace(0, 3, 5, dtype=torch.double)
    value = lambda x: float((scales * (x - 0.3) ** 2).sum())
    module = Point(5)
    config = (CMA if kind == "cma" else DiagonalCMA)(population=population, deviation=0.5)
    search = config.build({"model": module}, 50)
    peer = (cmaes.CMA if kind == "cma" else cmaes.SepCMA)(
        mean=np.linspace(-1, 1, 5), sigma=0.5, population_size=population
    )
    for step in range(50):
        search.covariance.decompose()
        noise = normal(generator_of(Noise("search", step), torch.device("cpu")), search.mean, population, 5)
        members = search.mean + search.step_size * search.covariance.colour(noise)
        peer.tell([(x.numpy().copy(), value(x)) for x in members])
        search.step(problem_of(module, lambda x: (scales * (x - 0.3) ** 2).sum(), step))
        np.testing.assert_allclose(search.mean.numpy(), peer._mean, rtol=1e-8, atol=1e-10)
        assert search.step_size == pytest.approx(peer._sigma, rel=1e-8)
    np.testing.assert_allclose(search.covariance.matrix.numpy(), peer._C, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(search.path.numpy(), peer._p_sigma, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(search.covariance_path.numpy(), peer._pc, rtol=1e-7, atol=1e-9)


def test_a_rotated_function_is_searched_along_a_rotated_path():
    """With the draws rotated as well, the mean of the one is the rotated mean of the other."""
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.double))[0]
    scales = torch.tensor([1.0, 5.0, 20.0, 100.0], dtype=torch.double)
    searches = [Adapting(CMA(population=8), {"model": Point(4)}, full_rates, Full) for _ in range(2)]
    searches[1].mean = turn @ searches[0].mean
    for step in range(30):
        noise = torch.randn(8, 4, dtype=torch.double, generator=torch.Generator().manual_seed(step))
        for number, search in enumerate(searches):
            search.covariance.decompose()
            plain = root(search.covariance.matrix)
            y = noise @ (plain if number == 0 else turn.T @ plain)
            x = search.mean + search.step_size * y
            inside = x if number == 0 else x @ turn
            search.tell(y[(scales * inside.square()).sum(1).argsort()])
    torch.testing.assert_close(searches[1].mean, turn @ searches[0].mean, rtol=1e-6, atol=1e-8)
    assert searches[0].step_size == pytest.approx(searches[1].step_size, rel=1e-8)


def root(matrix):
    """The symmetric square root."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.sqrt() @ vectors.T


def test_a_linear_function_lengthens_the_steps():
    module = Point(5)
    search, _ = run(CMA(deviation=0.1), module, lambda x: x.sum(), 40)
    assert search.step_size > 1.0


def test_a_covariance_that_changes_slowly_is_decomposed_now_and_then():
    """Few members and many parameters: every 17 generations. A search that is saved in between goes on bit for bit."""
    assert CMA().build({"model": Point(2410)}, 1).every == 17 and CMA().build({"model": Point(10)}, 1).every == 1
    module, other = Point(5), Point(5)
    search, again = (CMA(population=8).build({"model": point}, 1) for point in (module, other))
    search.every = again.every = 4
    run(None, module, sphere, 6, 0, search)
    kept = search.covariance.vectors.clone()
    other.load_state_dict(module.state_dict())
    again.load_state_dict(copy.deepcopy(search.state_dict()))
    for point, each in ((module, search), (other, again)):
        run(None, point, sphere, 2, 6, each)
    assert module.place.equal(other.place) and search.covariance.vectors.equal(kept)
    run(None, module, sphere, 1, 8, search)
    assert not search.covariance.vectors.equal(kept)


def test_weights_of_the_tutorial():
    rates = full_rates(10, 8)
    weights = torch.tensor(rates.weights, dtype=torch.double)
    positive, negative = weights[weights > 0], weights[weights < 0]
    assert float(positive.sum()) == pytest.approx(1) and len(negative) == 5
    assert float(-negative.sum()) <= 1 + rates.one / rates.many + 1e-12
    assert sum(diagonal_rates(10, 8).weights) == pytest.approx(1)


# -- populations -----------------------------------------------------------------------------------------------------


def net():
    return build_seeded(lambda: nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)))


def regression(module):
    batch = {"x": Noise("x").normal(16, 3), "y": Noise("y").normal(16, 2)}
    loss = lambda models, b: Loss({"rows": (models["model"](b["x"]) - b["y"]).square().sum()})
    turn = Turn("model", batch, loss, lambda b: {"rows": float(len(b["x"]))})
    return Problem({"model": module}, turn, {"model": module}, Noise("search", 0), 5)


@pytest.mark.parametrize("chunk", [1, 7, 20])
def test_members_at_once_have_the_losses_that_they_have_one_by_one(chunk):
    module = net()
    flat = Flat({"model": module})
    members = flat.vector() + 0.1 * torch.randn(20, len(flat.vector()))
    at_once = losses_of(regression(module), flat, members, "vmap", chunk)
    alone = losses_of(regression(module), flat, members, "loop", chunk)
    torch.testing.assert_close(at_once, alone, rtol=1e-6, atol=1e-6)
    assert average_ranks(at_once).equal(average_ranks(alone))


def test_tied_parameters_count_once_and_a_vector_comes_back():
    module = net()
    tied = nn.ModuleDict({"a": module[2], "b": module[2]})
    flat = Flat({"model": tied})
    assert len(flat.vector()) == sum(p.numel() for p in module[2].parameters())
    before = flat.vector()
    flat.set(torch.zeros_like(before))
    assert not flat.vector().any()
    flat.set(before)
    assert flat.vector().equal(before)


class Counting(nn.Module):
    """Batch norm in training, dropout, and a layer in another precision."""

    def __init__(self, dropout):
        super().__init__()
        self.layer, self.norm, self.drop = nn.Linear(3, 8).double(), nn.BatchNorm1d(8), nn.Dropout(dropout)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.layer(x.double()).float().tanh())))


def test_buffers_are_the_same_before_each_member_and_afterwards():
    torch.manual_seed(0)
    module = Counting(0.0)
    flat = Flat({"model": module})
    assert flat.vector().dtype == torch.double
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    members = flat.vector() + 0.1 * torch.randn(4, len(flat.vector()))
    problem = regression(module)
    problem.micro_batch = 4
    found = losses_of(problem, flat, members)
    assert all(buffer.equal(before[name]) for name, buffer in module.named_buffers())
    assert losses_of(problem, flat, members.flip(0)).equal(found.flip(0))
    Genetic(population=4, parents=2).build({"model": module}, 1).step(problem)
    assert int(module.norm.num_batches_tracked) == 4  # micro-batches of the model as it was
    with pytest.raises(SanbuError, match="given 'vmap', which cannot compute BatchNorm1d; allowed: auto, loop"):
        losses_of(problem, flat, members, "vmap")


def test_dropout_is_the_same_for_every_member_at_once_and_one_by_one():
    module = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.5), nn.Linear(16, 2))
    flat = Flat({"model": module})
    members = flat.vector() + 0.1 * torch.randn(6, len(flat.vector()))
    members[3] = members[0]
    problem = regression(module)
    problem.seed = lambda micro: torch.manual_seed(micro)
    at_once, alone = (losses_of(problem, flat, members, way, 4) for way in ("vmap", "loop"))
    torch.testing.assert_close(at_once, alone, rtol=1e-6, atol=1e-6)
    assert at_once[0] == at_once[3]
    problem.seed = lambda micro: torch.manual_seed(micro + 100)
    assert not torch.allclose(losses_of(problem, flat, members, "vmap", 4), at_once, rtol=1e-3)


def test_layers_of_two_types_are_computed_in_their_own():
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), Doubled(), nn.Linear(4, 2).double(), Halved())
    flat = Flat({"model": module})
    members = flat.vector() + 0.1 * torch.randn(5, len(flat.vector()))
    found = [losses_of(regression(module), flat, members, way) for way in ("vmap", "loop")]
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)


class Doubled(nn.Module):
    """To float64."""

    def forward(self, x):
        return x.double()


class Halved(nn.Module):
    """To float32."""

    def forward(self, x):
        return x.float()


def test_an_objective_that_uses_more_than_the_output_goes_one_by_one():
    module = net()
    module.scale = 3.0
    flat = Flat({"model": module})
    members = flat.vector() + 0.1 * torch.randn(5, len(flat.vector()))
    problem = regression(module)
    method = lambda models, b: Loss({"rows": (models["model"].forward(b["x"]) - b["y"]).square().sum()})
    plain, problem.turn = problem.turn, Turn("model", problem.turn.batch, method, problem.turn.count)
    assert losses_of(problem, flat, members).equal(losses_of(regression(module), flat, members, "loop"))
    with pytest.raises(SanbuError, match="this objective: forward of the model is used"):
        losses_of(problem, flat, members, "vmap")
    number = lambda models, b: Loss({"rows": models["model"].scale * models["model"](b["x"]).square().sum()})
    problem.turn = Turn("model", plain.batch, number, plain.count)
    found = [losses_of(problem, flat, members, way) for way in ("vmap", "loop")]
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)


def test_a_member_that_is_not_finite_is_the_worst():
    module = Point(3)
    broken = lambda x: torch.where(x[0] > -1, torch.nan, sphere(x))
    _, found = run(Genetic(population=16, parents=4, mutation=0.3), module, broken, 5)
    assert module.place[0] <= -1 and np.isfinite(found[-1]["loss"])
    with pytest.raises(NotFinite, match="for every member of the population"):
        run(Genetic(population=4, parents=2), Point(3), lambda x: x.sum() * torch.nan, 1)


def test_what_vmap_cannot_compute_is_one_line_or_goes_one_by_one():
    module = nn.LSTM(3, 2)
    flat = Flat({"model": module})
    loss = lambda models, b: Loss({"rows": models["model"](b["x"])[0].square().sum()})
    turn = Turn("model", {"x": torch.ones(2, 3)}, loss, lambda b: {"rows": 2.0})
    problem = Problem({"model": module}, turn, {"model": module}, Noise("search", 0))
    members = flat.vector().expand(3, -1)
    assert losses_of(problem, flat, members, "auto", 8).shape == (3,)
    with pytest.raises(SanbuError, match="given 'vmap', which cannot compute LSTM; allowed: auto, loop"):
        losses_of(problem, flat, members, "vmap", 8)


def test_bad_settings_are_one_line():
    with pytest.raises((ConfigError, ValueError), match="the members are pairs; give an even number"):
        Evolution(population=7)
    with pytest.raises((ConfigError, ValueError), match="elite must be less than population"):
        Genetic(population=4, elite=4, parents=2)
    with pytest.raises(SanbuError, match="given 'cma' for 6,000 parameters, allowed: up to 5,000"):
        CMA().build({"model": Point(6000)}, 1)
    with pytest.raises(SanbuError, match="the model has no parameters to search"):
        Genetic().build({"model": nn.Identity()}, 1)


def test_an_objective_without_a_gradient_is_refused_by_gradient_searches():
    module = net()
    loss = lambda models, b: Loss({"rows": (models["model"](b["x"]).argmax(1) != 1).float().sum()})
    turn = Turn("model", {"x": torch.randn(4, 3)}, loss, lambda b: {"rows": 4.0})
    problem = Problem({"model": module}, turn, {"model": module}, Noise("search", 0))
    with pytest.raises(SanbuError, match="the objective has no gradient; allowed: genetic, evolution, snes, cma"):
        SGD().build({"model": module}, 1).step(problem)
    Genetic(population=4, parents=2).build({"model": module}, 1).step(problem)
