// Package linear has the test that reading and editing the texts of others takes linear time. It counts statements and
// bytes instead of measuring time. It is not part of any product.
package linear
