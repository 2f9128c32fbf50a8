extension Range<Int> {
  /// The first index that is not below what is looked for, or the end, by halving: `isBelow` is true for
  /// all indices before it and false for all others.
  @inlinable
  @inline(__always)
  public func partition(isBelow: (Int) -> Bool) -> Int {
    var (low, high) = (lowerBound, upperBound)
    while low < high {
      let middle = low + (high - low) / 2
      if isBelow(middle) { low = middle + 1 } else { high = middle }
    }
    return low
  }
}
