"""How the receptive field of any network is found, in the order in which the work is done.

trace      one run of the module on tensors without data, meeting every operation; torch's privates are here
rules      what the result of each operation reads, one short rule for each family of operations
layout     where the rows and columns of a map lie in a tensor
taps       which positions each output position reads, along one axis
propagate  from the output back to the input: who influences whom
"""
