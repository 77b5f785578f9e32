"""Grading that a submission cannot fool: its code runs in one process, the tests in another.

wire         plain data between the two; nothing that arrives can run
worker       the process of the student's code
sandbox      starts that process, within limits
notebook     reads cells, of any file
trusted      runs the source's tests against what the worker answers
course       the folders of a course: what was handed in, and the results, one file a submission
gradebook    nbgrader's gradebook: the release version, marks by hand, a CSV
feedback     a page for the student
"""
