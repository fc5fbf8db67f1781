//! Every operation of the engine, in small networks of its own, against finite differences.

use ndarray::{Array, Array1, Array2, Array4, ArrayD, Dimension, IxDyn, ShapeBuilder};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use relugrad::{
    BatchNorm, Builder, Direction, FiniteDifference, Gate, Loss, Network, NodeId, Objective,
    Penalty, Result, Targets, Window,
};

/// A builder whose parameters are random.
struct Draft {
    builder: Builder<f64>,
    random: ChaCha8Rng,
    node: NodeId,
}

impl Draft {
    fn new(seed: u64, shape: &[usize]) -> Draft {
        let mut builder = Builder::new();
        let node = builder.input_shaped(shape).unwrap();
        Draft {
            builder,
            random: ChaCha8Rng::seed_from_u64(seed),
            node,
        }
    }

    fn array<D: Dimension>(&mut self, shape: impl ShapeBuilder<Dim = D>) -> Array<f64, D> {
        Array::from_shape_simple_fn(shape, || self.random.random_range(-1.0..1.0))
    }

    fn then(mut self, add: impl FnOnce(&mut Builder<f64>, NodeId) -> Result<NodeId>) -> Draft {
        self.node = add(&mut self.builder, self.node).unwrap();
        self
    }

    fn conv(mut self, outputs: usize, window: Window, groups: usize, bias: bool) -> Draft {
        let channels = self.builder.shape(self.node).unwrap()[0];
        let [height, width] = window.kernel;
        let weight: Array4<f64> = self.array((outputs, channels / groups, height, width));
        let bias = bias.then(|| self.array(outputs));
        self.then(|b, x| b.conv2d(x, weight, bias, window, groups))
    }

    fn batch_norm(mut self, axis: usize) -> Draft {
        let length = self.builder.shape(self.node).unwrap()[axis];
        let norm = BatchNorm {
            scale: self.array(length),
            shift: self.array(length),
            mean: self.array(length),
            variance: self.array(length).mapv(f64::abs),
            epsilon: 1e-2,
        };
        self.then(|b, x| b.batch_norm(x, axis, norm))
    }

    fn dense(mut self, outputs: usize) -> Draft {
        let inputs = *self.builder.shape(self.node).unwrap().last().unwrap();
        let (weight, bias): (Array2<f64>, Array1<f64>) =
            (self.array((outputs, inputs)), self.array(outputs));
        self.then(|b, x| b.dense(x, weight, Some(bias)))
    }

    fn random(&mut self, shape: &[usize]) -> ArrayD<f64> {
        self.array(IxDyn(shape))
    }

    /// Flattened, three logits.
    fn network(self) -> Network<f64> {
        let draft = self.then(Builder::flatten).dense(3);
        draft.builder.build(draft.node).unwrap()
    }
}

fn close(found: &[f64], expected: &[f64], what: &str) {
    let size = expected.iter().fold(1e-3, |m: f64, e| m.max(e.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f - e).abs() <= 1e-6 * size,
            "{what}: entry {i} is {f:e}, not {e:e}"
        );
    }
}

/// Jacobian, input gradient, curvature and the parameter gradients of penalties of every form agree
/// with differences.
fn check(network: &Network<f64>, seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut draw =
        |n: usize| Array2::from_shape_simple_fn((2, n), || random.random_range(-1.0..1.0));
    let (x, v, u) = (
        draw(network.inputs()),
        draw(network.inputs()),
        draw(network.outputs()),
    );
    let (loss, targets) = (Loss::softmax_cross_entropy(), Targets::Classes(&[0, 2]));
    let difference = FiniteDifference::central(1e-6).unwrap();
    let trace = network.trace(x.view()).unwrap();
    let slice = |a: &ArrayD<f64>| a.iter().copied().collect::<Vec<f64>>();
    let jacobian = trace.jacobian().unwrap().into_dyn();
    let expected = difference.jacobian(network, x.view()).unwrap().into_dyn();
    close(&slice(&jacobian), &slice(&expected), "Jacobian");
    let g = trace.input_gradient(&loss, &targets).unwrap().into_dyn();
    let expected = difference
        .input_gradient(network, &loss, x.view(), &targets)
        .unwrap();
    close(&slice(&g), &slice(&expected.into_dyn()), "input gradient");
    let hv = trace
        .curvature(&loss)
        .unwrap()
        .apply(v.view())
        .unwrap()
        .into_dyn();
    let expected = difference
        .hvp(network, &loss, x.view(), &targets, v.view())
        .unwrap();
    close(
        &slice(&hv),
        &slice(&expected.into_dyn()),
        "Hessian-vector product",
    );
    let (jv, ju) = (trace.jvp(v.view()).unwrap(), trace.vjp(u.view()).unwrap());
    let (left, right) = ((&jv * &u).sum(), (&ju * &v).sum());
    assert!(
        (left - right).abs() <= 1e-13 * (left.abs() + 1.0),
        "{left} is not {right}"
    );
    let cure = Penalty::Cure {
        step: 1e-3,
        direction: Direction::Gradient { held: false },
    };
    for penalty in [
        Penalty::InputGradient,
        Penalty::Jacobian,
        Penalty::CurvatureFrobenius,
        cure,
    ] {
        let objective = Objective::new(loss).with(penalty.clone(), 0.7).unwrap();
        let (_, found) = objective.gradient(network, x.view(), &targets).unwrap();
        let expected = difference.parameter_gradient(&objective, network, x.view(), &targets);
        close(
            found.values(),
            expected.unwrap().values(),
            &penalty.to_string(),
        );
    }
}

#[test]
fn convolutions() {
    let window = Window::new([3, 2]);
    let windows = [
        window,
        window.stride([2, 1]).padding([[1, 0], [0, 1]]),
        window.dilation([2, 3]).padding([[2, 1], [3, 0]]),
        window
            .stride([1, 3])
            .dilation([1, 2])
            .padding([[0, 2], [2, 2]]),
        Window::new([1, 1]),
        Window::new([1, 1]).stride([2, 2]),
    ];
    for (seed, window) in windows.into_iter().enumerate() {
        for groups in [1, 2] {
            let seed = (2 * seed + groups) as u64;
            let draft = Draft::new(seed, &[2, 5, 5]).conv(4, window, groups, groups == 1);
            let network = draft
                .then(Builder::relu)
                .conv(2, Window::new([2, 1]), 1, true);
            check(&network.then(Builder::relu).network(), seed);
        }
    }
}

#[test]
fn average_pooling_and_means() {
    let window = Window::new([3, 2]).stride([2, 2]).padding([[1, 1], [1, 0]]);
    for count in [true, false] {
        for window in [window, window.ceil(true), Window::new([5, 5])] {
            let draft = Draft::new(3, &[1, 5, 5]).conv(3, Window::new([1, 1]), 1, true);
            let draft = draft.then(Builder::relu);
            let draft = draft.then(|b, x| b.average_pool(x, window, count));
            check(&draft.network(), 4);
        }
    }
    for axes in [&[0][..], &[1, 2], &[0, 2], &[]] {
        let draft = Draft::new(5, &[3, 2, 4]).then(|b, x| b.gate(x, Gate::Abs));
        check(&draft.then(|b, x| b.mean(x, axes)).network(), 6);
    }
}

#[test]
fn maxima() {
    let windows = [
        Window::new([2, 2]).stride([2, 2]),
        Window::new([3, 3]).stride([2, 2]).padding([[1, 1], [1, 1]]),
        Window::new([2, 3]).dilation([2, 1]).ceil(true),
    ];
    for (seed, window) in windows.into_iter().enumerate() {
        let draft = Draft::new(seed as u64, &[1, 5, 5]).conv(3, Window::new([2, 2]), 1, true);
        let pooled = draft.then(|b, x| b.max_pool(x, window));
        check(
            &pooled
                .conv(2, Window::new([1, 1]), 1, true)
                .then(Builder::relu)
                .network(),
            9,
        );
    }
    let draft = Draft::new(11, &[5]).dense(12).then(|b, x| b.maxout(x, 3));
    check(
        &draft
            .dense(6)
            .then(|b, x| b.reshape(x, &[2, 3]))
            .then(|b, x| b.max(x, 0))
            .network(),
        12,
    );
}

/// A pool behind ReLU: windows of inactive units are no kinks.
#[test]
fn ties_of_inactive_units_are_no_kinks() {
    let draft = Draft::new(2, &[1, 6, 6]).conv(4, Window::new([2, 2]), 1, true);
    let pool = Window::new([2, 2]).stride([1, 1]);
    let low = ArrayD::from_elem(IxDyn(&[]), -0.8);
    let draft = draft
        .then(|b, x| b.shift(x, low, false))
        .then(Builder::relu);
    let network = draft.then(|b, x| b.max_pool(x, pool)).network();
    let x = Array2::from_shape_fn((1, 36), |(_, i)| ((i * 7) % 11) as f64 / 5.0 - 1.0);
    let trace = network.trace(x.view()).unwrap();
    let layer = |unit: usize| trace.pattern().is_active(0, 0, unit);
    let dead =
        |unit: usize| !layer(unit) && !layer(unit + 1) && !layer(unit + 5) && !layer(unit + 6);
    let mut corners = (0..100).filter(|unit| unit % 5 < 4 && unit % 25 < 20);
    assert!(corners.any(dead), "some window is inactive");
    assert_eq!(trace.kinks(), [0]);
    check(&network, 21);
}

#[test]
fn elementwise_maps_and_gates() {
    let mut draft = Draft::new(31, &[2, 3, 2]).batch_norm(0);
    for (learned, shape) in [
        (true, &[2, 1, 1][..]),
        (false, &[3, 1]),
        (true, &[]),
        (true, &[2, 3, 2]),
    ] {
        let (scale, shift) = (draft.random(shape), draft.random(shape));
        draft = draft.then(|b, x| b.scale(x, scale, learned));
        draft = draft.then(|b, x| b.shift(x, shift, learned));
    }
    let slopes = draft.random(&[2, 1, 1]);
    let draft = draft.then(|b, x| b.prelu_shared(x, slopes)).batch_norm(2);
    check(
        &draft
            .then(|b, x| b.gate(x, Gate::LeakyRelu { slope: 0.2 }))
            .network(),
        32,
    );
    let draft = Draft::new(33, &[4]).dense(9).batch_norm(0);
    let clip = Gate::Clip {
        min: -0.4,
        max: 0.5,
    };
    check(
        &draft
            .then(|b, x| b.gate(x, clip))
            .dense(70)
            .then(|b, x| b.gate(x, clip))
            .network(),
        34,
    );
}

#[test]
fn rearrangements() {
    let draft = Draft::new(41, &[2, 3, 4]).then(|b, x| b.transpose(x, &[2, 0, 1]));
    let draft = draft.dense(4).then(Builder::relu);
    let draft = draft.then(|b, x| b.slice(x, 0, 3, -2, 2));
    let draft = draft
        .then(|b, x| b.pad(x, 2, [1, 2], 0.5))
        .then(Builder::relu);
    let draft =
        draft.then(|b, x| b.gather(x, &[5], &[Some(3), None, Some(3), Some(9), Some(20)], -0.3));
    check(&draft.network(), 42);
}

/// A residual network with batch normalisation, a node used twice, and an input that skips to the
/// output.
#[test]
fn branches() {
    let same = Window::new([3, 3]).padding([[1, 1], [1, 1]]);
    let draft = Draft::new(51, &[2, 4, 4]);
    let input = draft.node;
    let draft = draft
        .conv(3, same, 1, false)
        .batch_norm(0)
        .then(Builder::relu);
    let stem = draft.node;
    let draft = draft
        .conv(3, same, 1, false)
        .batch_norm(0)
        .then(Builder::relu);
    let draft = draft.conv(3, same, 3, true);
    let draft = draft
        .then(|b, x| b.sum(&[x, stem, stem]))
        .then(Builder::relu);
    let draft = draft.then(|b, x| b.concat(&[x, input, stem], 0));
    let draft = draft.then(|b, x| b.max_pool(x, Window::new([2, 2]).stride([2, 2])));
    let draft = draft
        .then(|b, x| b.concat(&[x, x], 2))
        .then(Builder::flatten);
    let draft = draft.dense(4).then(Builder::relu).dense(3);
    let draft = draft.then(|b, x| b.gate(x, Gate::Abs));
    check(&draft.builder.build(draft.node).unwrap(), 52);
}

/// Whether two networks have the same logits and Jacobians.
fn assert_same(found: &Network<f64>, expected: &Network<f64>, seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let x = Array2::from_shape_simple_fn((3, expected.inputs()), || random.random_range(-1.0..1.0));
    let (found, expected) = (
        found.trace(x.view()).unwrap(),
        expected.trace(x.view()).unwrap(),
    );
    let far = |difference: ArrayD<f64>| difference.iter().fold(0.0, |m: f64, d| m.max(d.abs()));
    assert!(far((&found.logits() - &expected.logits()).into_dyn()) < 1e-13);
    assert!(far((found.jacobian().unwrap() - expected.jacobian().unwrap()).into_dyn()) < 1e-13);
}

#[test]
fn folding_batch_normalisation_changes_nothing() {
    let window = Window::new([2, 2]);
    let draft = Draft::new(61, &[2, 5, 5])
        .conv(4, window, 2, false)
        .batch_norm(0);
    let draft = draft
        .then(Builder::relu)
        .batch_norm(0)
        .conv(4, window, 2, true);
    let padded = window.padding([[1, 0], [0, 0]]);
    let draft = draft
        .then(Builder::relu)
        .batch_norm(0)
        .conv(2, padded, 1, true);
    let draft = draft
        .then(Builder::relu)
        .then(Builder::flatten)
        .batch_norm(0)
        .dense(5);
    let network = draft.batch_norm(0).then(Builder::relu).network();
    let (folded, left) = network.fold_batch_norm().unwrap();
    // What comes before padding stays.
    assert_eq!(left, ["batch-norm2"]);
    let norms = |network: &Network<f64>| {
        let nodes = network.nodes().iter();
        nodes
            .filter(|node| node.operation().name() == "batch-norm")
            .count()
    };
    assert_eq!((norms(&network), norms(&folded)), (5, 1));
    assert_same(&folded, &network, 62);
}

#[test]
fn maxima_as_relus_change_nothing() {
    let windows = [
        Window::new([2, 3]).stride([2, 1]),
        Window::new([3, 3])
            .stride([2, 2])
            .padding([[1, 1], [1, 1]])
            .ceil(true),
    ];
    for window in windows {
        let draft = Draft::new(71, &[2, 6, 6]).then(|b, x| b.max_pool(x, window));
        let draft = draft
            .conv(6, Window::new([2, 2]), 1, true)
            .then(|b, x| b.maxout(x, 3));
        let network = draft.network();
        let rewritten = network.max_to_relu().unwrap();
        let maxima = rewritten
            .nodes()
            .iter()
            .filter(|node| node.operation().name().starts_with("max"));
        assert_eq!(maxima.count(), 0);
        assert_same(&rewritten, &network, 72);
    }
}
