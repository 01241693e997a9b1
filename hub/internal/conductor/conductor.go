// Package conductor is
package conductor
