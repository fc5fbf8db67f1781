//! Numbers that are known when a kernel is compiled.

/// Evaluates an expression with a number as a constant:
/// `with_constant!(width, W in [1, 2; 4] => f::<W>())`. The number is in the list, whose last entry
/// is not looked for.
macro_rules! with_constant {
    ($number:expr, $name:ident in [$($case:expr),*; $last:expr] => $with:expr) => {
        match $number {
            $(number if number == $case => {
                const $name: usize = $case;
                $with
            })*
            number => {
                const $name: usize = $last;
                debug_assert_eq!(number, $name);
                $with
            }
        }
    };
}
