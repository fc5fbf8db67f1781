use proptest::prelude::*;

use super::*;
use crate::product::lanes::{lanes, on_each_path};

/// A convolution with the output that the input has.
fn sized(mut of: Convolution) -> Convolution {
    for axis in 0..2 {
        let [before, after] = of.padding[axis];
        let extent = of.dilation[axis] * (of.kernel[axis] - 1) + 1;
        let free = (of.input[1 + axis] + before + after).saturating_sub(extent);
        of.output[1 + axis] = free / of.stride[axis] + 1;
    }
    of
}

fn shape(channels: usize, outputs: usize, kernel: [usize; 2]) -> Convolution {
    sized(Convolution {
        input: [channels, 6, 7],
        output: [outputs, 0, 0],
        kernel,
        stride: [1, 1],
        dilation: [1, 1],
        padding: [[0, 0], [0, 0]],
        groups: 1,
    })
}

impl Convolution {
    /// Calls `f` with the places in a row of the output, in the weight and in a row of the input of
    /// all products.
    fn products(&self, mut f: impl FnMut(usize, usize, usize)) {
        let ([_, height, width], [outputs, rows, columns]) = (self.input, self.output);
        let ([channels, some], [down, across]) = (self.group(), self.kernel);
        for at in 0..outputs * rows * columns * self.taps() {
            let (c, tap) = (at / self.taps(), at % self.taps());
            let (channel, i, j) = (tap / (down * across), tap / across % down, tap % across);
            let (output, row, column) = (c / (rows * columns), c / columns % rows, c % columns);
            let y = row * self.stride[0] + i * self.dilation[0];
            let x = column * self.stride[1] + j * self.dilation[1];
            let y = y.checked_sub(self.padding[0][0]).filter(|&y| y < height);
            let x = x.checked_sub(self.padding[1][0]).filter(|&x| x < width);
            if let (Some(y), Some(x)) = (y, x) {
                let channel = output / some * channels + channel;
                let weight = output * self.taps() + tap;
                f(c, weight, (channel * height + y) * width + x);
            }
        }
    }

    /// Every direction in every way against the definition. All numbers are small and whole, so
    /// sums are exact.
    fn check<T: Lanes>(&self, (samples, rows): (usize, usize)) {
        let entry = |i: usize| T::from_f64((i * 5 % 7) as f64 - 3.0);
        let some = |length: usize| (0..length).map(entry).collect::<Vec<T>>();
        let (n, m, size) = (self.inputs(), self.outputs(), self.output[0] * self.taps());
        let (weight, t) = (some(size), some(samples * rows * n));
        let mut c = some(samples * rows * m);
        for (i, c) in c.iter_mut().enumerate() {
            if (i / (rows * m) * 31 + i % m * 17) % 5 < 3 {
                *c = T::ZERO;
            }
        }
        let mut below = vec![T::ONE; samples * rows * n];
        let mut gradient = vec![T::ONE; size];
        let two = T::from_f64(2.0);
        for row in 0..samples * rows {
            self.products(|at, w, x| {
                below[row * n + x] += c[row * m + at] * weight[w];
                gradient[w] += two * c[row * m + at] * t[row * n + x];
            });
        }
        self.check_forward(&weight, &t);
        let transpose = |accumulate: bool, found: &mut [T]| {
            self.transpose_dense(&weight, &c, accumulate, found);
        };
        check_transpose(self, &below, transpose);
        let (mut found, mut sparse) = (vec![T::ONE; size], vec![T::ONE; size]);
        self.gradient_dense(&c, &t, two, &mut found);
        assert_eq!(found, gradient, "{self:?}");
        if self.has_runs() && lanes::<T>() >= 4 {
            let transpose = |accumulate: bool, found: &mut [T]| {
                self.transpose_sparse(rows, &weight, &c, accumulate, found);
            };
            check_transpose(self, &below, transpose);
            self.gradient_sparse(rows, &c, &t, two, &mut sparse);
            assert_eq!(sparse, gradient, "{self:?}");
        }
    }

    fn check_forward<T: Lanes>(&self, weight: &[T], input: &[T]) {
        let (n, m) = (self.inputs(), self.outputs());
        let bias: Vec<T> = (0..self.output[0]).map(|i| T::from_f64(i as f64)).collect();
        let mut out = vec![T::ZERO; input.len() / n * m];
        for (out, input) in out.chunks_exact_mut(m).zip(input.chunks_exact(n)) {
            self.products(|at, w, x| out[at] += weight[w] * input[x]);
        }
        let mut found = vec![T::ONE; out.len()];
        self.apply(weight, None, input, &mut found);
        assert_eq!(found, out, "{self:?}");
        let channel = |i: usize| i / self.positions() % self.output[0];
        out.iter_mut()
            .enumerate()
            .for_each(|(i, out)| *out += bias[channel(i)]);
        self.apply(weight, Some(&bias), input, &mut found);
        assert_eq!(found, out, "{self:?}");
    }
}

/// What `transpose` adds to ones, and what it writes.
fn check_transpose<T: Lanes>(of: &Convolution, expected: &[T], transpose: impl Fn(bool, &mut [T])) {
    let mut found = vec![T::ONE; expected.len()];
    transpose(true, &mut found);
    assert_eq!(found, expected, "{of:?}");
    transpose(false, &mut found);
    let minus: Vec<T> = expected.iter().map(|&entry| entry - T::ONE).collect();
    assert_eq!(found, minus, "{of:?}");
}

#[test]
fn products_equal_the_definition_for_every_shape_of_a_kernel() {
    for down in 1..=6 {
        for across in 1..=5 {
            for channels in [1, 2, 3, 5, 16, 21] {
                shape(channels, 3, [down, across]).check::<f32>((2, 1));
            }
            shape(9, 11, [down, across]).check::<f64>((3, 2));
        }
    }
}

#[test]
fn every_set_of_instructions_has_the_same_products() {
    let strided = Convolution {
        stride: [2, 1],
        padding: [[1, 0], [2, 1]],
        ..shape(17, 19, [3, 3])
    };
    let grouped = Convolution {
        groups: 3,
        dilation: [1, 2],
        ..shape(6, 9, [2, 3])
    };
    on_each_path(|| {
        for convolution in [
            shape(3, 16, [5, 5]),
            shape(16, 20, [3, 3]),
            strided,
            grouped,
        ] {
            sized(convolution).check::<f32>((2, 1));
            sized(convolution).check::<f64>((1, 2));
        }
    });
}

#[test]
fn strips_join_where_an_image_is_larger_than_the_cache() {
    let large = Convolution {
        input: [9, 83, 90],
        padding: [[2, 1], [1, 2]],
        ..shape(9, 2, [4, 3])
    };
    let strided = Convolution {
        stride: [2, 3],
        ..large
    };
    let dilated = Convolution {
        dilation: [20, 3],
        ..large
    };
    for convolution in [large, strided, dilated] {
        sized(convolution).check::<f64>((1, 1));
    }
}

#[test]
fn pointwise_products_equal_the_definition_for_images_of_any_size() {
    for size in [[4, 6], [4, 8], [5, 5], [32, 32], [48, 37]] {
        let pointwise = Convolution {
            input: [70, size[0], size[1]],
            ..shape(70, 9, [1, 1])
        };
        sized(pointwise).check::<f32>((1, 2));
        sized(pointwise).check::<f64>((2, 1));
    }
}

#[test]
fn steps_that_are_larger_than_the_image_take_no_room() {
    let far = Convolution {
        input: [2, 5, 6],
        padding: [[1 << 24, 1 << 24], [3, 1 << 20]],
        stride: [1 << 24, 1 << 20],
        dilation: [1 << 24, 1],
        ..shape(2, 3, [2, 1])
    };
    sized(far).check::<f32>((2, 1));
}

#[test]
fn samples_without_cotangents_have_no_part() {
    let convolution = shape(3, 2, [3, 3]);
    let (n, m) = (convolution.inputs(), convolution.outputs());
    let (weight, c) = (vec![1.0f32; 2 * convolution.taps()], vec![0.0; 2 * m]);
    let (mut below, mut gradient) = (vec![5.0; 2 * n], vec![5.0; weight.len()]);
    convolution.transpose(1, &weight, &c, false, &mut below);
    convolution.gradient(1, &c, &vec![1.0; 2 * n], 1.0, &mut gradient);
    assert!(below.iter().all(|&b| b == 0.0) && gradient.iter().all(|&g| g == 5.0));
}

/// Kernels that fit their padded input, in up to four groups.
fn convolutions() -> impl Strategy<Value = Convolution> {
    let channels = || prop_oneof![1_usize..10, 10_usize..71];
    let pair = |most: usize| [1..=most, 1..=most];
    let side = || prop_oneof![1_usize..12, 12_usize..41];
    let groups = prop_oneof![3 => Just(1_usize), 1 => 2_usize..5, 1 => Just(usize::MAX)];
    let shape = (channels(), channels(), groups, [side(), side()]);
    let window = (
        pair(5),
        pair(4),
        pair(3),
        [[0_usize..4, 0..4], [0..4, 0..4]],
    );
    (shape, window).prop_map(|(shape, window)| {
        let ((inputs, outputs, groups, [height, width]), (kernel, stride, dilation, padding)) =
            (shape, window);
        // Groups of one channel each, or of as many as few groups leave.
        let groups = groups.min(inputs);
        let [inputs, outputs] = match groups {
            1 => [inputs, outputs],
            _ => [inputs, outputs].map(|channels| channels.next_multiple_of(groups)),
        };
        let least = |axis: usize, size: usize| {
            let extent = dilation[axis] * (kernel[axis] - 1) + 1;
            size.max(extent.saturating_sub(padding[axis][0] + padding[axis][1]))
        };
        sized(Convolution {
            input: [inputs, least(0, height).max(1), least(1, width).max(1)],
            output: [outputs, 0, 0],
            kernel,
            stride,
            dilation,
            padding,
            groups,
        })
    })
}

/// Smaller ones in place of those whose definition takes long.
fn small(mut of: Convolution) -> Convolution {
    while of.outputs() * of.taps() > 300_000 {
        let axis = if of.input[1] > of.input[2] { 1 } else { 2 };
        let extent = of.dilation[axis - 1] * (of.kernel[axis - 1] - 1) + 1;
        if of.input[axis] / 2 < extent {
            return shape(of.kernel[0], of.kernel[1], [3, 2]);
        }
        of.input[axis] /= 2;
        of = sized(of);
    }
    of
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_direction_equals_the_definition(of in convolutions().prop_map(small), rows in 1_usize..4) {
        of.check::<f32>((1, rows));
        of.check::<f64>((2, 1));
    }

    #[test]
    fn bits_do_not_depend_on_the_number_of_threads(of in convolutions().prop_map(small)) {
        let random = |length: usize| (0..length).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<f32>>();
        let (rows, size) = (12, of.output[0] * of.taps());
        let (weight, t, c) = (random(size), random(rows * of.inputs()), random(rows * of.outputs()));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (mut out, mut below) = (random(c.len()), random(t.len()));
                let mut gradient = random(size);
                of.apply(&weight, None, &t, &mut out);
                of.transpose(1, &weight, &c, true, &mut below);
                of.gradient(1, &c, &t, 0.5, &mut gradient);
                (out, below, gradient)
            })
        };
        prop_assert_eq!(run(1), run(3));
    }
}
