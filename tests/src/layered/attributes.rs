//! Networks of every operation with every attribute that a builder accepts.

use super::*;

/// Entries of the widest value before anything is added to it.
const WIDEST: usize = 40;

/// Names that need care in files: what an exporter might call its own values, and what must be
/// escaped.
const NAMES: [&str; 8] = [
    "dense0.weight",
    "gather0/flat",
    "a.shape",
    "output",
    "\"quoted\" \\ ü\n",
    "a",
    "a/product",
    " ",
];

/// A network of random operations, attributes and names; equal seeds give equal networks.
///
/// # Panics
/// If an operation is put where it does not fit, which is a fault of this module.
pub fn every_attribute(seed: u64) -> Network<f64> {
    let mut draft = Draft::of_any_shape(seed);
    for _ in 0..draft.random.random_range(OPERATIONS) {
        draft.any_step();
    }
    draft.rename_some();
    if draft.random.random() {
        draft.finish()
    } else {
        draft.finish_as_it_is()
    }
}

impl Draft {
    fn of_any_shape(seed: u64) -> Draft {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let shape: Vec<usize> = match random.random_range(0..8) {
            0 => vec![],
            1 => vec![random.random_range(1..=6)],
            2 => vec![random.random_range(1..=4), random.random_range(1..=4)],
            _ => [1..=4, 1..=6, 3..=6]
                .map(|r| random.random_range(r))
                .to_vec(),
        };
        Draft::on(random, &shape)
    }

    fn number(&mut self, range: std::ops::RangeInclusive<usize>) -> usize {
        self.random.random_range(range)
    }

    fn any_step(&mut self) {
        let (x, shape) = (self.last, self.shape(self.last));
        let image = shape.len() == 3;
        let ranked = !shape.is_empty();
        match self.number(0..=17) {
            0..=2 if image => self.any_convolution(x, &shape),
            3..=5 if image => self.any_pooling(x, &shape),
            0..=5 => self.as_image(x, &shape),
            6 => self.any_mean(x, &shape),
            7 if ranked => self.any_max(x, &shape),
            8 if ranked => self.any_normalisation(x, &shape),
            9 => self.any_elementwise(x, &shape),
            10 => self.any_sum(x, &shape),
            11 if ranked => self.any_concatenation(x, &shape),
            12 => self.any_transpose(x, &shape),
            13 => self.any_gather(x),
            14 | 15 => self.any_gate(x, &shape),
            _ if ranked => self.dense(x, &shape),
            _ => self.any_gather(x),
        }
    }

    /// A shape with so many entries, of up to four axes.
    fn shape_of(&mut self, width: usize) -> Vec<usize> {
        let (mut rest, mut shape) = (width, Vec::new());
        for _ in 0..self.number(0..=3) {
            let divisors: Vec<usize> = (1..=rest).filter(|d| rest.is_multiple_of(*d)).collect();
            let length = *divisors.choose(&mut self.random).unwrap();
            shape.push(length);
            rest /= length;
        }
        if rest > 1 || self.random.random() {
            shape.push(rest);
        }
        shape
    }

    fn as_image(&mut self, x: NodeId, shape: &[usize]) {
        let width = shape.iter().product();
        let mut image = self.shape_of(width);
        image.resize(3, 1);
        if image.iter().product::<usize>() != width {
            image = vec![1, 1, width];
        }
        let y = self.builder.reshape(x, &image).unwrap();
        self.push(&[x], y);
    }

    /// A window that fits, of any attributes; `overhang` is how far padding may reach.
    fn any_window(&mut self, shape: &[usize]) -> Window {
        let mut window = Window::new([1, 1]);
        for axis in 0..2 {
            let side = shape[axis + 1];
            let kernel = self.number(1..=side.min(3));
            let dilation = self.number(1..=2.max(side / 2));
            let dilation = if (kernel - 1) * dilation < side {
                dilation
            } else {
                1
            };
            // Runtimes take no padding as large as the kernel.
            window.padding[axis] = [self.number(0..=kernel - 1), self.number(0..=kernel - 1)];
            window.stride[axis] = self.number(1..=3);
            (window.kernel[axis], window.dilation[axis]) = (kernel, dilation);
        }
        window
    }

    fn any_convolution(&mut self, x: NodeId, shape: &[usize]) {
        let window = self.any_window(shape);
        let all: Vec<usize> = (1..=shape[0])
            .filter(|g| shape[0].is_multiple_of(*g))
            .collect();
        let groups = *all.choose(&mut self.random).unwrap();
        let outputs = groups * self.number(1..=2);
        let [height, width] = window.kernel;
        let weight = self.array((outputs, shape[0] / groups, height, width), 1.0);
        let bias = self.bias(outputs);
        let z = self
            .builder
            .conv2d(x, weight, bias, window, groups)
            .unwrap();
        self.push(&[x], z);
    }

    fn bias(&mut self, outputs: usize) -> Option<ndarray::Array1<f64>> {
        let bias = self.random.random::<bool>();
        bias.then(|| self.array(outputs, 0.5))
    }

    /// An average or a maximum, unless a window would lie in the padding alone.
    fn any_pooling(&mut self, x: NodeId, shape: &[usize]) {
        let ceil = self.random.random();
        let window = self.any_window(shape).ceil(ceil);
        let count = self.random.random();
        let before = self.builder.clone();
        let pooled = if self.random.random() {
            self.builder.average_pool(x, window, count)
        } else {
            self.builder.max_pool(x, window)
        };
        match pooled {
            Ok(y) => self.push(&[x], y),
            Err(_) => self.builder = before,
        }
    }

    fn any_mean(&mut self, x: NodeId, shape: &[usize]) {
        let axes: Vec<usize> = (0..shape.len())
            .filter(|_| self.random.random_range(0..3) > 0)
            .collect();
        let y = self.builder.mean(x, &axes).unwrap();
        self.push(&[x], y);
    }

    fn any_max(&mut self, x: NodeId, shape: &[usize]) {
        let axis = self.number(0..=shape.len() - 1);
        let y = self.builder.max(x, axis).unwrap();
        self.push(&[x], y);
    }

    fn any_normalisation(&mut self, x: NodeId, shape: &[usize]) {
        let axis = self.number(0..=shape.len() - 1);
        let epsilon = 10f64.powi(-(self.number(0..=6) as i32));
        let norm = BatchNorm {
            scale: self.array(shape[axis], 1.5),
            shift: self.array(shape[axis], 0.5),
            mean: self.array(shape[axis], 0.5),
            variance: self
                .array(shape[axis], 1.0)
                .mapv(|v: f64| v.abs().max(0.05)),
            epsilon,
        };
        let y = self.builder.batch_norm(x, axis, norm).unwrap();
        self.push(&[x], y);
    }

    /// Numbers that broadcasting brings to a shape: without leading axes, with axes of length 1.
    fn broadcast(&mut self, shape: &[usize], size: f64) -> ArrayD<f64> {
        let first = self.number(0..=shape.len());
        let mut dims = shape[first..].to_vec();
        for n in &mut dims {
            if self.random.random() {
                *n = 1;
            }
        }
        self.array(IxDyn(&dims), size)
    }

    fn any_elementwise(&mut self, x: NodeId, shape: &[usize]) {
        let learned = self.random.random();
        let numbers = self.broadcast(shape, 1.5);
        let y = if self.random.random() {
            self.builder.scale(x, numbers, learned).unwrap()
        } else {
            self.builder.shift(x, numbers, learned).unwrap()
        };
        self.push(&[x], y);
    }

    /// Some nodes of which each has the shape but for `axis`, one of them perhaps twice, and `x`
    /// last.
    fn alike(&mut self, x: NodeId, shape: &[usize], axis: Option<usize>) -> Vec<NodeId> {
        let alike = |draft: &Draft, node: NodeId| {
            let other = draft.shape(node);
            let same = |(i, (a, b))| a == b || Some(i) == axis;
            other.len() == shape.len() && other.iter().zip(shape).enumerate().all(same)
        };
        let all = self.nodes.iter().copied();
        let all: Vec<NodeId> = all.filter(|&node| alike(self, node)).collect();
        let mut chosen: Vec<NodeId> = (0..self.number(0..=2))
            .map(|_| *all.choose(&mut self.random).unwrap())
            .collect();
        chosen.push(x);
        chosen
    }

    fn any_sum(&mut self, x: NodeId, shape: &[usize]) {
        let nodes = self.alike(x, shape, None);
        let y = self.builder.sum(&nodes).unwrap();
        self.push(&nodes, y);
    }

    fn any_concatenation(&mut self, x: NodeId, shape: &[usize]) {
        let axis = self.number(0..=shape.len() - 1);
        let mut nodes = self.alike(x, shape, Some(axis));
        let width = |node: &NodeId| self.shape(*node).iter().product::<usize>();
        if nodes.iter().map(width).sum::<usize>() > 2 * WIDEST {
            nodes = vec![x];
        }
        let y = self.builder.concat(&nodes, axis).unwrap();
        self.push(&nodes, y);
    }

    fn any_transpose(&mut self, x: NodeId, shape: &[usize]) {
        let mut axes: Vec<usize> = (0..shape.len()).collect();
        axes.shuffle(&mut self.random);
        let y = self.builder.transpose(x, &axes).unwrap();
        self.push(&[x], y);
    }

    fn any_gather(&mut self, x: NodeId) {
        let inputs: usize = self.shape(x).iter().product();
        let count = self.number(1..=24);
        let shape = self.shape_of(count);
        let fills = self.random.random::<bool>();
        let mut place = || {
            let place = self.random.random_range(0..inputs);
            (!fills || self.random.random_range(0..4) > 0).then_some(place)
        };
        let index: Vec<Option<usize>> = (0..count).map(|_| place()).collect();
        let fill = self.random.random_range(-1.0..1.0);
        let y = self.builder.gather(x, &shape, &index, fill).unwrap();
        self.push(&[x], y);
    }

    fn any_gate(&mut self, x: NodeId, shape: &[usize]) {
        let gate = match self.number(0..=5) {
            0 => Gate::LeakyRelu {
                slope: self.random.random_range(-1.0..1.0),
            },
            1 => Gate::LeakyRelu { slope: -0.25 },
            2 => Gate::Abs,
            3 => {
                let bounds = [[-0.75, 1.0], [0.1, 0.2], [-1.5, 1e39], [-1e300, -0.1]];
                let [min, max] = *bounds.choose(&mut self.random).unwrap();
                Gate::Clip { min, max }
            }
            4 => {
                let slopes = self.broadcast(shape, 0.5);
                let a = self.builder.prelu_shared(x, slopes).unwrap();
                return self.push(&[x], a);
            }
            _ => Gate::Relu,
        };
        let a = self.builder.gate(x, gate).unwrap();
        self.push(&[x], a);
    }

    /// Gives up to three nodes names that need care.
    fn rename_some(&mut self) {
        let mut names = NAMES;
        names.shuffle(&mut self.random);
        for name in &names[..self.number(0..=3)] {
            let node = *self.nodes.choose(&mut self.random).unwrap();
            self.builder.rename(node, name).unwrap();
        }
    }

    /// Logits that are what comes last, of any shape; what nothing has read yet is summed up beside
    /// it.
    fn finish_as_it_is(mut self) -> Network<f64> {
        let shape = self.shape(self.last);
        let width: usize = shape.iter().product();
        let mut terms = vec![self.last];
        for node in self.nodes.clone() {
            if self.read[node.index()] == 0 && node != self.last {
                let inputs: usize = self.shape(node).iter().product();
                let index: Vec<Option<usize>> =
                    (0..width).map(|i| (i < inputs).then_some(i)).collect();
                terms.push(self.builder.gather(node, &shape, &index, 0.5).unwrap());
            }
        }
        let last = if terms.len() > 1 {
            self.builder.sum(&terms).unwrap()
        } else {
            self.last
        };
        self.builder.build(last).unwrap()
    }
}
